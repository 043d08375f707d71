"""Two processes train one model, without find_unused_parameters. This file is also the program each process runs."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import distributed, nn

import spikeback as sb


def make_model() -> sb.ShortcutNet:
    torch.manual_seed(0)
    return sb.ShortcutNet(sb.create_model("spiking_resnet18", num_classes=5, time_steps=2, width=4))


def batch(rank: int, step: int) -> torch.Tensor:
    return torch.randn(3, 3, 8, 8, generator=torch.Generator().manual_seed(10 * step + rank))


def train(rank: int, folder: Path, weights: list[float]) -> None:
    init = f"file://{folder / 'rendezvous'}"
    distributed.init_process_group("gloo", init_method=init, rank=rank, world_size=2)
    model = nn.parallel.DistributedDataParallel(make_model())
    optimiser = torch.optim.SGD(model.parameters(), lr=0.1)
    for step, weight in enumerate(weights):
        optimiser.zero_grad()
        model(batch(rank, step), weight).square().mean().backward()
        optimiser.step()
    torch.save(model.module.state_dict(), folder / f"{rank}.pt")
    distributed.destroy_process_group()


@pytest.mark.parametrize("weights", [(0.0, 0.0), (0.25, 0.0, 0.0)])
def test_two_processes_train_one_model(tmp_path: Path, weights: tuple[float, ...]) -> None:
    command = [sys.executable, __file__, str(tmp_path), *map(str, weights)]
    env = os.environ | {"OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    processes = [
        subprocess.Popen([*command, str(rank)], env=env, stderr=subprocess.PIPE, text=True) for rank in range(2)
    ]
    for process in processes:
        _, errors = process.communicate(timeout=100)
        assert process.returncode == 0, errors
    first, second = (torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(2))
    start = make_model().state_dict()
    names = [name for name, _ in make_model().named_parameters()]
    for name in names:
        assert torch.equal(first[name], second[name]), name
        moved = not torch.equal(first[name], start[name])
        assert moved == (name.startswith("net.") or any(weights)), name


if __name__ == "__main__":
    train(int(sys.argv[-1]), Path(sys.argv[1]), [float(w) for w in sys.argv[2:-1]])
