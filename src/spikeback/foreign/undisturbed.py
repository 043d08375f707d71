"""Whatever is measured, the network is left as it was found."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from spikeback.foreign.randomness import kept_randomness, randomness_of
from spikeback.nn import local_statistics


@contextmanager
def undisturbed(net: nn.Module) -> Iterator[None]:
    """Put buffers, modes, hidden neuron state and random state back afterwards; parameters are the caller's to restore.

    Random state is that of PyTorch, NumPy and Python, and of generators that modules hold.
    Batch norms take the statistics of this process's batch alone: a measurement does not wait for other processes.
    Hidden state is whatever a module keeps in its attributes, one level of dictionary, list or set deep.
    """
    kept = _kept(net)
    try:
        with kept_randomness(net), local_statistics():
            yield
    finally:
        _put_back(*kept)


@contextmanager
def all_or_nothing(net: nn.Module) -> Iterator[None]:
    """If anything goes wrong while the context lasts, parameters, buffers, attributes and random state are put back."""
    kept, put_back, state = _kept(net, parameters=True), randomness_of(net), torch.get_rng_state()
    try:
        yield
    except BaseException:
        _put_back(*kept)
        put_back()
        torch.set_rng_state(state)
        raise


Kept = tuple[list[Any], list[Any], list[tuple[Tensor, Tensor]]]


def _kept(net: nn.Module, parameters: bool = False) -> Kept:
    """All modules' attributes, what their containers hold, and the values of tensors among these."""
    attributes = [(vars(module), dict(vars(module))) for module in net.modules()]
    containers = [(c, c.copy()) for _, kept in attributes for c in kept.values() if type(c) in CONTAINERS]
    held = [*(v for _, kept in attributes for v in kept.values()), *(v for c, _ in containers for v in _items(c))]
    wanted = [t for t in held if isinstance(t, Tensor) and (parameters or not isinstance(t, nn.Parameter))]
    return attributes, containers, [(t, t.detach().clone()) for t in wanted if not is_lazy(t)]


def _put_back(attributes: list[Any], containers: list[Any], tensors: list[tuple[Tensor, Tensor]]) -> None:
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
