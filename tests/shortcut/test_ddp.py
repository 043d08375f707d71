"""Two processes train one model, without find_unused_parameters. This file is also the program each process runs."""

import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import distributed, nn

import spikeback as sb

pytestmark = pytest.mark.slow

ARMS = {"vanilla": (0.0, 0.0), "evolutionary": (0.25, 0.0, 0.0)}  # the weight at every step


def make_model() -> sb.ShortcutNet:
    torch.manual_seed(0)
    return sb.ShortcutNet(sb.create_model("spiking_resnet18", num_classes=5, time_steps=2, width=4))


def batch(rank: int, step: int) -> torch.Tensor:
    return torch.randn(3, 3, 8, 8, generator=torch.Generator().manual_seed(10 * step + rank))


def train(rank: int, folder: Path) -> None:
    init = f"file://{folder / 'rendezvous'}"
    distributed.init_process_group("gloo", init_method=init, rank=rank, world_size=2)
    for arm, weights in ARMS.items():
        model = nn.parallel.DistributedDataParallel(make_model())
        optimiser = torch.optim.SGD(model.parameters(), lr=0.1)
        for step, weight in enumerate(weights):
            optimiser.zero_grad()
            model(batch(rank, step), weight).square().mean().backward()
            optimiser.step()
        torch.save(model.module.state_dict(), folder / f"{arm}{rank}.pt")
    distributed.destroy_process_group()


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, two_processes: Callable[[str, Path], None]) -> Path:
    folder = tmp_path_factory.mktemp("ddp")
    two_processes(__file__, folder)
    return folder


@pytest.mark.parametrize("arm", ARMS)
def test_two_processes_train_one_model(trained: Path, arm: str) -> None:
    first, second = (torch.load(trained / f"{arm}{rank}.pt", weights_only=True) for rank in range(2))
    for name, start in make_model().named_parameters():
        assert torch.equal(first[name], second[name]), name
        moved = not torch.equal(first[name], start)
        assert moved == (name.startswith("net.") or any(ARMS[arm])), name


if __name__ == "__main__":
    train(int(sys.argv[2]), Path(sys.argv[1]))
