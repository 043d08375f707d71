"""LIF neurons alone, forward and backward, and the yardstick: how fast this machine copies memory."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import spikeback as sb
from spikeback.lab.bench.steps import Made
from spikeback.lab.bench.worker import find
from spikeback.ops.lif import reference
from spikeback.ops.surrogate import Surrogate
from spikeback.values import from_text

TAU, THRESHOLD = 0.25, 0.5
TENSORS = 5  # that must move: forward reads x, writes spikes; backward reads x and a gradient, writes a gradient


def both_ways(neuron: str, arguments: dict[str, Any], shape: list[int], dtype: str = "float32") -> Made:
    """Spikes of a current of `shape` (T, B, ...), and its gradient; `neuron` names a maker of current -> spikes."""
    torch.manual_seed(0)
    run = find(neuron)(**arguments)
    x = torch.randn(shape).to(getattr(torch, dtype)).requires_grad_()
    grad = torch.randn(shape).to(x.dtype)

    def work() -> None:
        run(x).backward(grad)
        x.grad = None

    return work, {"firing_rate": run(x).detach().float().mean().item()}


def ours(surrogate: str, backend: str | None = None) -> Callable[[Tensor], Tensor]:
    """`spikeback.LIF`, or `spikeback.lif` by a backend, with the surrogate written out as text."""
    value = from_text(surrogate, Surrogate)
    if backend is None:
        return sb.LIF(TAU, THRESHOLD, value)
    return lambda x: sb.lif(x, TAU, THRESHOLD, value, backend=backend)[0]


def compiled(surrogate: str) -> Callable[[Tensor], Tensor]:
    """The reference under torch.compile, which needs a C++ compiler."""
    value = from_text(surrogate, Surrogate)
    return torch.compile(lambda x: reference.lif(x, TAU, THRESHOLD, value, None, 1.0, False)[0])


def copy(size: int) -> Made:
    """Copy `size` bytes into memory that is there already."""
    source, target = torch.ones(size, dtype=torch.uint8), torch.zeros(size, dtype=torch.uint8)
    return lambda: target.copy_(source), {"bytes_moved": 2 * size}


def copy_size(device: str = "cpu") -> int:
    """Bytes that no cache of the device holds: four times the last level, at least 128 MiB."""
    if device == "cuda":
        return max(4 * torch.cuda.get_device_properties().L2_cache_size, 128 << 20)
    caches = Path("/sys/devices/system/cpu/cpu0/cache").glob("index*/size")
    sizes = [int(text[:-1]) << 10 for path in caches if (text := path.read_text("ascii").strip()).endswith("K")]
    return max([4 * size for size in sizes] + [128 << 20])
