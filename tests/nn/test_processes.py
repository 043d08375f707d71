"""Two processes share the statistics of a batch. This file is also the program that each of them runs."""

import math
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, distributed, nn

import spikeback as sb
from spikeback.nn import BatchNorm2d, TdBatchNorm2d, fuse, local_statistics
from spikeback.nn.norms.prototype import norm_for
from spikeback.ops import native
from spikeback.ops.processes import mean_over_processes
from spikeback.train import mean_cross_entropy

pytestmark = pytest.mark.slow

C, T = 3, 2
NORMS = {
    "batch norm": nn.BatchNorm2d(1),
    "mean of all": nn.BatchNorm2d(1, momentum=None),
    "tdBN": TdBatchNorm2d(1, 0.7),
}
SHARES = {"equal": (3, 3), "unequal": (1, 5)}  # samples of each process
TERMS = ("alone", "residual", "two norms", "static")


def prepared(prototype: nn.Module, dtype: torch.dtype = torch.float64) -> Any:
    """One of our norms with weights and running statistics of its own."""
    torch.manual_seed(1)
    norm: Any = norm_for(prototype, C).to(dtype)
    for t in (norm.weight.data, norm.bias.data, norm.running_mean, norm.running_var):
        t.uniform_(0.5, 2)
    return norm


def part(x: Tensor, share: tuple[int, ...], rank: int | None, axis: int = 0) -> Tensor:
    """What a process has of a batch; None: all."""
    return x if rank is None else x.split(list(share), axis)[rank]


def normalised(prototype: nn.Module, share: tuple[int, ...], rank: int | None) -> dict[str, Tensor]:
    """Output, gradients and running statistics of a norm after two batches."""
    norm = prepared(prototype)
    result = {}
    for _ in range(2):
        whole, grad = (3 * torch.randn(sum(share), C, 4, 5, dtype=torch.float64) + 2 for _ in range(2))
        x = part(whole, share, rank).clone().requires_grad_()
        y = norm(x)
        y.backward(part(grad, share, rank))
        result = {"output": y.detach(), "x": x.grad}
    sums = {"weight": norm.weight.grad, "bias": norm.bias.grad}
    return result | sums | dict(norm.named_buffers())


def fired(terms: str, share: tuple[int, ...], rank: int | None) -> dict[str, Tensor]:
    """Spikes and gradients of the fused neuron behind one norm or two."""
    norms = [prepared(nn.BatchNorm2d(1), torch.float32) for _ in range(2)]
    steps = 1 if terms == "static" else T
    xs = [part(torch.randn(steps, sum(share), C, 4, 5), share, rank, 1).clone().requires_grad_() for _ in range(2)]
    grad = part(torch.randn(T, sum(share), C, 4, 5), share, rank, 1)
    count = 1 if terms in ("alone", "static") else 2
    pairs = [*map(fuse.Term, xs, norms if terms == "two norms" else [norms[0], None])][:count]
    neuron = sb.LIF(surrogate=sb.surrogate.Sigmoid(2.0))
    assert fuse.why_not(neuron, pairs) is None
    spikes = fuse.fused(neuron, pairs, T)
    spikes.backward(grad)
    result = {"output": spikes.detach(), **{f"x{i}": x.grad for i, x in enumerate(xs) if x.grad is not None}}
    for i, norm in enumerate(norms[: 2 if terms == "two norms" else 1]):
        result |= {f"weight{i}": norm.weight.grad, f"bias{i}": norm.bias.grad}
        result |= {f"{name}{i}": b for name, b in norm.named_buffers()}
    return result


def stepped(norm: nn.Module | None, rank: int | None) -> dict[str, Tensor]:
    """Parameters and buffers after one step of evolutionary training, in double precision."""
    torch.manual_seed(2)
    net = sb.create_model("spiking_resnet20_he", num_classes=5, time_steps=2, width=4, norm=norm)
    model: Any = sb.ShortcutNet(net, taps="block").double()
    x, y = torch.randn(6, 3, 8, 8, dtype=torch.float64), torch.arange(6) % 5
    wrapped = model if rank is None else nn.parallel.DistributedDataParallel(model)
    optimiser = torch.optim.SGD(model.parameters(), lr=0.1)
    logits = wrapped(part(x, (3, 3), rank), sb.Evolutionary(0.25)(0.0), per_step=False)
    mean_cross_entropy(logits, part(y, (3, 3), rank)).backward()
    optimiser.step()
    return model.state_dict()


def run_all(rank: int | None) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, share in SHARES.items():
        for kind, norm in NORMS.items():
            found[f"{kind}, {name}"] = normalised(norm, share, rank)
        for terms in TERMS if native.available() else ():
            found[f"fused {terms}, {name}"] = fired(terms, share, rank)
    found["mean"] = mean_over_processes(torch.tensor([math.nan if rank == 1 else 3.0, 2.0 + (rank or 0)]))
    found["step"], found["tdBN step"] = stepped(None, rank), stepped(TdBatchNorm2d(1), rank)
    return found


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory, two_processes: Callable[[str, Path], None]) -> list[dict[str, Any]]:
    """What each of two processes found."""
    folder = tmp_path_factory.mktemp("processes")
    two_processes(__file__, folder)
    return [torch.load(folder / f"{rank}.pt") for rank in range(2)]


@pytest.fixture(scope="module")
def whole() -> dict[str, Any]:
    return run_all(None)


def assert_close(a: Tensor, b: Tensor, within: float, what: str) -> None:
    assert (a.double() - b.double()).abs().max() <= within, what


def assert_together(both: list[dict[str, Tensor]], whole: dict[str, Tensor], within: float) -> None:
    """Outputs and gradients of inputs are joined, those of parameters added; buffers are the same everywhere."""
    for name, expected in whole.items():
        parts = [found[name] for found in both]
        if name.startswith(("output", "x")):
            assert_close(torch.cat(parts, expected.ndim - 4), expected, within, name)
        elif name.startswith(("weight", "bias")):
            assert_close(sum(parts, torch.zeros(())), expected, within, name)
        else:
            assert torch.equal(*parts)
            assert_close(parts[0], expected, within, name)


@pytest.mark.parametrize("share", SHARES)
@pytest.mark.parametrize("kind", NORMS)
def test_norm_of_two_processes_is_that_of_the_whole_batch(
    kind: str, share: str, both: list[dict[str, Any]], whole: dict[str, Any]
) -> None:
    name = f"{kind}, {share}"
    assert_together([found[name] for found in both], whole[name], 1e-12)


@pytest.mark.skipif(not native.available(), reason="no compiled kernels")
@pytest.mark.parametrize("share", SHARES)
@pytest.mark.parametrize("terms", TERMS)
def test_fused_neuron_of_two_processes_is_that_of_the_whole_batch(
    terms: str, share: str, both: list[dict[str, Any]], whole: dict[str, Any]
) -> None:
    name = f"fused {terms}, {share}"
    assert_together([found[name] for found in both], whole[name], 1e-5)


@pytest.mark.parametrize("name", ["step", "tdBN step"])
def test_step_of_two_processes_is_that_at_the_double_batch(
    name: str, both: list[dict[str, Any]], whole: dict[str, Any]
) -> None:
    for key, expected in whole[name].items():
        assert_close(both[0][name][key], expected, 1e-10, key)
        assert torch.equal(both[0][name][key], both[1][name][key]), key


def test_a_number_that_is_not_finite_is_so_for_all(both: list[dict[str, Any]], whole: dict[str, Any]) -> None:
    assert whole["mean"].tolist() == [3.0, 2.0]
    for found in both:
        assert found["mean"].isfinite().tolist() == [False, True]
        assert found["mean"][1] == 2.5


def test_measuring_does_not_wait_for_other_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(distributed, "get_world_size", lambda: 2)
    monkeypatch.setattr(distributed, "all_reduce", lambda x: pytest.fail("waits for another process"))
    net = sb.create_model("spiking_resnet20_he", num_classes=5, time_steps=2, width=4)
    x, y = torch.randn(8, 3, 8, 8), torch.arange(8) % 5
    sb.calibrate(net, x, y, batches=2)
    with local_statistics():
        net(x)
    net.eval()(x)
    with pytest.raises(pytest.fail.Exception, match="waits"):
        BatchNorm2d(3)(x)


if __name__ == "__main__":
    process = int(sys.argv[2])
    distributed.init_process_group("gloo", init_method=f"file://{sys.argv[1]}/rendezvous", rank=process, world_size=2)
    torch.save(run_all(process), Path(sys.argv[1]) / f"{process}.pt")
    distributed.destroy_process_group()
