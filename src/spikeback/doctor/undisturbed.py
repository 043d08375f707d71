"""Whatever is measured, the network is left as it was found."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from spikeback.nn import local_statistics


@contextmanager
def undisturbed(net: nn.Module) -> Iterator[None]:
    """Put buffers, modes, hidden neuron state and random state back afterwards; parameters are the caller's to restore.

    Batch norms take the statistics of this process's batch alone: a measurement does not wait for other processes.
    Hidden state is whatever a module keeps in its attributes, one level of dictionary, list or set deep.
    """
    attributes = [(vars(module), dict(vars(module))) for module in net.modules()]
    containers = [(c, c.copy()) for _, kept in attributes for c in kept.values() if type(c) in CONTAINERS]
    held = [*(v for _, kept in attributes for v in kept.values()), *(v for c, _ in containers for v in _items(c))]
    tensors = [(t, t.detach().clone()) for t in held if isinstance(t, Tensor) and not isinstance(t, nn.Parameter)]
    try:
        devices = [torch.cuda.current_device()] if torch.cuda.is_available() else []
        with torch.random.fork_rng(devices), local_statistics():
            yield
    finally:
        for values, kept in attributes:
            for name in [name for name in values if name not in kept]:
                del values[name]
            values.update(kept)
        for container, items in containers:
            container.clear()
            container.extend(items) if isinstance(container, list) else container.update(items)
        for t, value in tensors:
            if not torch.equal(t, value):  # writing the same again would spoil graphs that the owner may hold
                t.detach().copy_(value)


CONTAINERS = (dict, list, set, type(nn.Module()._forward_hooks))  # the last is what PyTorch keeps its own in


def _items(container: Any) -> list[Any]:
    return list(container.values() if isinstance(container, dict) else container)


@contextmanager
def listening(module: nn.Module, heard: Callable[[Any, Any], None]) -> Iterator[None]:
    """Call `heard(first argument, output)` after every call of `module` while the context lasts."""
    handle = module.register_forward_hook(lambda _module, args, output: heard(args[0] if args else None, output))
    try:
        yield
    finally:
        handle.remove()


@contextmanager
def entering(module: nn.Module, heard: Callable[[Any], None]) -> Iterator[None]:
    """Call `heard(first argument)` before every call of `module` while the context lasts."""
    handle = module.register_forward_pre_hook(lambda _module, args: heard(args[0] if args else None))
    try:
        yield
    finally:
        handle.remove()
