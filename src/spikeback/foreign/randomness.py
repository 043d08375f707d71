"""A network's random numbers: from the generators of PyTorch, NumPy and Python, and from those its modules hold."""

import pickle
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import nn

OWN = (torch.Generator, np.random.Generator, np.random.RandomState, random.Random)


@contextmanager
def kept_randomness(net: nn.Module) -> Iterator[None]:
    """Inside, random numbers may be drawn and seeds be set; afterwards every generator is where it was."""
    put_back = randomness_of(net)
    try:
        with torch.random.fork_rng([torch.cuda.current_device()] if torch.cuda.is_available() else []):
            yield
    finally:
        put_back()


@contextmanager
def same_draws(net: nn.Module) -> Iterator[None]:
    """What a network draws at random is the same in every such context, so that passes can be compared."""
    with kept_randomness(net):
        torch.manual_seed(0)
        np.random.seed(0)  # noqa: NPY002 - networks may draw from it
        random.seed(0)
        for seed, generator in enumerate(_generators(net), 1):
            if isinstance(generator, torch.Generator):
                generator.manual_seed(seed)
            elif isinstance(generator, np.random.Generator):
                generator.bit_generator.state = type(generator.bit_generator)(seed).state
            else:
                generator.seed(seed)
        yield


def randomness_of(net: nn.Module) -> Callable[[], None]:
    """A function that puts back the state of every generator but PyTorch's global ones."""
    kept = [(put, get()) for get, put in _others(net)]
    kept += [(g.set_state, g.get_state()) for g in _generators(net) if isinstance(g, torch.Generator)]

    def put_back() -> None:
        for put, state in kept:
            put(state)

    return put_back


def unseen(net: nn.Module) -> bytes:
    """What changes when a network draws from NumPy's or Python's generators, which no PyTorch operator shows."""
    return pickle.dumps([get() for get, _ in _others(net)])


def _others(net: nn.Module) -> list[tuple[Callable[[], Any], Callable[[Any], Any]]]:
    """How the state of each generator of NumPy and Python is read, and how it is set."""
    found = [(np.random.get_state, np.random.set_state), (random.getstate, random.setstate)]
    for g in _generators(net):
        if isinstance(g, np.random.Generator):
            bits = g.bit_generator
            found.append((partial(getattr, bits, "state"), partial(setattr, bits, "state")))
        elif isinstance(g, np.random.RandomState):
            found.append((g.get_state, g.set_state))
        elif isinstance(g, random.Random):
            found.append((g.getstate, g.setstate))
    return found


def _generators(net: nn.Module) -> list[Any]:
    """Generators among the attributes of modules, one level of dictionary, list or tuple deep, each once."""
    found: dict[int, Any] = {}
    for module in net.modules():
        for value in vars(module).values():
            held = value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else [value]
            found.update((id(g), g) for g in held if isinstance(g, OWN))
    return [*found.values()]
