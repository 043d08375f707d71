"""Which places of a network run in PyTorch's operations, and why: what `fire` and the neurons say while one listens."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import torch
from torch import Tensor, nn

Places = dict[nn.Module, str | None]
_places: ContextVar[Places | None] = ContextVar("places", default=None)


@contextmanager
def noting() -> Iterator[Places]:
    """Within, every neuron that is called is noted with the reason why it was not fused; None: it was."""
    places: Places = {}
    token = _places.set(places)
    try:
        yield places
    finally:
        _places.reset(token)


def is_noting() -> bool:
    """Whether anybody wants to know."""
    return _places.get() is not None


def note(neuron: nn.Module, reason: str | None) -> None:
    """Say that a neuron ran, fused (None) or not. A reason stays: of a norm and its neuron the norm is called first."""
    if (places := _places.get()) is not None:
        places[neuron] = places.get(neuron) or reason


def named(net: nn.Module, places: Places) -> dict[str, str]:
    """The reasons by the names of the modules."""
    return {name: reason for name, module in net.named_modules() if (reason := places.get(module))}


def sentence(reasons: dict[str, str]) -> str | None:
    """The reasons in one line, the places of each counted after the first; None: everything is fused."""
    places: dict[str, list[str]] = {}
    for name, reason in reasons.items():
        places.setdefault(reason, []).append(name or "the network itself")
    more = lambda names: f" and {len(names) - 1} more" if names[1:] else ""
    said = "; ".join(f"{names[0]}{more(names)} ({reason})" for reason, names in places.items())
    return f"Runs in PyTorch's operations, which take longer: {said}." if said else None


def why_not_fused(net: nn.Module, x: Tensor) -> dict[str, str]:
    """Where a network runs in PyTorch's operations instead of the fused kernels: {module name: the reason}.

    `net(x)` runs once, without gradients and in the mode that the network is in; buffers and the random state are put
    back. Empty if every neuron of ours is fused with the norm before it. Convolutions are not judged, and neurons of
    other frameworks are not ours.

    >>> sb.nn.why_not_fused(net, x)
    {'layer1.0.lif2': 'GroupNorm has no kernel'}
    """
    kept = [(buffer, buffer.clone()) for buffer in net.buffers()]
    try:
        with torch.no_grad(), torch.random.fork_rng(devices=[]), noting() as places:
            net(x)
    finally:
        for buffer, value in kept:
            with torch.no_grad():
                buffer.copy_(value)
    return named(net, places)
