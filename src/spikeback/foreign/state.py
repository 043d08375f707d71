"""Hidden state of neurons: how each known family forgets it, and how a neuron of one's own can be made known."""

import warnings
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from spikeback.errors import UsageError
from spikeback.foreign.randomness import same_draws

# The method of one layer (not of a class) by which it forgets, by framework and base class.
FORGET = {
    ("spikingjelly", "MemoryModule"): "reset",
    ("snntorch", "SpikingNeuron"): "reset_mem",
    ("sinabs", "StatefulLayer"): "reset_states",
}
RESETS = ("reset", "reset_mem", "reset_hidden", "reset_states")  # what networks may call on a neuron themselves
_registered: dict[type[nn.Module], Callable[[Any], object]] = {}


def register_stateful(kind: type[nn.Module], forget: Callable[[Any], object]) -> None:
    """Register a class of modules that keep hidden state from one call to the next, and how to reset that state.

    Afterwards `ShortcutNet`, `Unrolled` and `diagnose` reset the state of such modules before every forward pass. A
    second registration of the same class replaces the first.

    Args:
        kind: the class. Its subclasses are reset in the same way, unless they are registered themselves.
        forget: a function that is called with the module and resets it, e.g. `MyNeuron.reset`.

    Raises:
        UsageError: `kind` is no class of modules, or `forget` cannot be called.
    """
    if not (isinstance(kind, type) and issubclass(kind, nn.Module) and callable(forget)):
        raise UsageError(f"register_stateful takes a class of modules and a function, got {kind!r} and {forget!r}")
    _registered[kind] = forget


def reset_state(net: nn.Module) -> None:
    """Reset the hidden state of every neuron of `net`, and change nothing else.

    Known are the stateful layers of SpikingJelly, snnTorch and sinabs, and classes registered with `register_stateful`.
    A method called `reset` of any other module is not called, since it may reset weights, averages or caches. Our own
    neurons and norse's keep no state.
    """
    for module in net.modules():
        forget = _forgetting(module)
        if forget is not None:
            forget(module)
            for name, value in vars(module).items():  # what its method leaves behind (snnTorch's SLSTM: its spikes)
                if isinstance(value, Tensor) and value.grad_fn is not None:
                    setattr(module, name, value.detach())


def is_stateful(module: nn.Module) -> bool:
    """Whether a module is known to keep state from one call to the next."""
    return _forgetting(module) is not None


def _forgetting(module: nn.Module) -> Callable[[Any], object] | None:
    """How a module forgets; None if it is not known to keep state."""
    for cls in type(module).__mro__:
        if cls in _registered:
            return _registered[cls]
        name = FORGET.get((cls.__module__.partition(".")[0], cls.__name__))
        if name is not None:  # a class without the method keeps nothing (snnTorch's StateLeaky)
            return getattr(type(module), name, None)
    return None


def first(output: object) -> Tensor:
    """The tensor of an output: itself, or the first item of a tuple or list (snnTorch returns spikes and membrane)."""
    while isinstance(output, tuple | list) and output:
        output = output[0]
    if not isinstance(output, Tensor):
        raise UsageError(f"expected a tensor (or a tuple that begins with one), got {type(output).__name__}")
    return output


def loose_tensors(module: nn.Module) -> Iterator[Tensor]:
    """Tensors a module holds outside parameters and buffers: hidden state, one level of dict or list deep."""
    for value in vars(module).values():
        items = value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else [value]
        yield from (t for t in items if isinstance(t, Tensor) and not t.is_leaf)


def warn_of_memory(net: nn.Module, run: Callable[[Tensor], Tensor], x: Tensor) -> None:
    """Warn if the same input gives other logits the second time: something remembers what `reset_state` cannot reset.

    `run` starts from a fresh neuron state, as far as that is known.
    """
    outputs, tensors = [], []
    for _ in range(2):
        with torch.no_grad(), same_draws(net):
            outputs.append(run(x).detach())
        tensors.append({name: [t.clone() for t in _attributes(m)] for name, m in net.named_modules()})
    if outputs[0].shape == outputs[1].shape and torch.allclose(*outputs, equal_nan=True):
        return
    before, after = tensors
    modules = dict(net.named_modules())
    alike = lambda name: len(before[name]) == len(after[name]) and all(map(torch.equal, before[name], after[name]))
    found = [name for name in modules if not alike(name) and not is_stateful(modules[name])]
    if not found:  # it draws at random in a way of its own
        return
    kind = type(modules[found[0]]).__name__
    warnings.warn(
        f"{type(net).__name__} gives other logits when it sees the same input again: {found[0]!r} ({kind}) remembers "
        "the last batch, and spikeback does not know how to make it forget; before the network is wrapped or "
        f"diagnosed, say spikeback.register_stateful({kind}, {kind}.reset), with the method that makes it forget",
        UserWarning, stacklevel=2,
    )  # fmt: skip


def _attributes(module: nn.Module) -> Iterator[Tensor]:
    """Tensors among a module's own attributes and buffers, one level of dictionary or list deep."""
    for name, value in vars(module).items():
        items = value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else [value]
        if name != "_parameters":
            yield from (t.detach() for t in items if isinstance(t, Tensor) and not isinstance(t, nn.Parameter))
