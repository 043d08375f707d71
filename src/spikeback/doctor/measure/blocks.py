"""The blocks of a network: the places between which the doctor compares gradients."""

from collections.abc import Collection
from typing import Any

from torch import nn

from spikeback.errors import UsageError
from spikeback.shortcut.adapt import TimeAveraged, Unrolled
from spikeback.shortcut.net import ShortcutNet
from spikeback.values import near

CONTAINERS = (nn.Sequential, nn.ModuleList, nn.ModuleDict)


def find_blocks(net: nn.Module, layers: dict[str, nn.Module], blocks: Collection[str] | None = None) -> list[str]:
    """Dotted names of the blocks of `net`, at least two.

    Args:
        net: the network; inside a ShortcutNet, `Unrolled` or `TimeAveraged` the names begin with "net.".
        layers: its spiking layers by name (`spiking_layers`).
        blocks: their names, kept in the order given. None takes those of kind "block" in the net's `feature_info`, else
            the units that hold spiking layers: children of a Sequential, ModuleList or ModuleDict, and siblings of one
            class; else every spiking layer. All of these are in order of registration, which is the order of the
            forward pass in most networks: where it is not, give `blocks`.

    Raises:
        UsageError: no spiking layer, fewer than two blocks, a name that does not exist, or one inside another.
    """
    if not layers:
        raise UsageError(
            f"no spiking layer found in {type(net).__name__}: pass is_spiking=..., a function of a module that is true "
            "for its neurons, e.g. is_spiking=lambda m: isinstance(m, MyNeuron)"
        )
    if blocks is not None:
        return _checked(net, layers, [blocks] if isinstance(blocks, str) else list(blocks))
    inner, prefix = _unwrapped(net)
    named = [f"{prefix}{name}" for name in block_names(inner)]
    spiking = {id(layer) for layer in layers.values()}
    found = named if len(named) > 1 else _units(inner, prefix, spiking)
    while len(found) == 1:  # one unit that is the whole network: look inside
        found = _units(net.get_submodule(found[0]), f"{found[0]}.", spiking)
    found = found or list(layers)
    if len(found) < 2:
        raise UsageError(
            f"found one spiking layer in {type(net).__name__}, {found[0]!r}, and the doctor compares at least two "
            "blocks: name them, blocks=[...], or tell it which other modules spike, is_spiking=..."
        )
    return found


def _unwrapped(net: nn.Module) -> tuple[nn.Module, str]:
    """The network inside our wrappers, and what its names begin with."""
    prefix = ""
    while isinstance(net, ShortcutNet | Unrolled | TimeAveraged):
        net, prefix = net.net, f"{prefix}net."
    return net, prefix


def block_names(net: Any) -> list[str]:
    """Modules of kind "block" in `feature_info`, in network order: our residual blocks, the layers of a VGG.

    A network of another maker may have none.
    """
    entries = getattr(net, "feature_info", None) or []
    return [e["module"] for e in entries if isinstance(e, dict) and e.get("kind") == "block"]


def _units(module: nn.Module, prefix: str, spiking: set[int]) -> list[str]:
    """Units below `module`: those it repeats, else those inside the children that hold spiking layers."""
    holding = [
        (f"{prefix}{name}", child)
        for name, child in module.named_children()
        if id(child) not in spiking and any(id(m) in spiking for m in child.modules())
    ]
    kinds = [type(child) for _, child in holding if not isinstance(child, CONTAINERS)]
    found: list[str] = []
    for name, child in holding:
        unit = isinstance(module, CONTAINERS) or kinds.count(type(child)) > 1
        if not unit or isinstance(child, CONTAINERS):
            inner = _units(child, f"{name}.", spiking)
            found += inner or [name] * unit
        else:
            found.append(name)
    return found


def _checked(net: nn.Module, layers: dict[str, nn.Module], blocks: list[str]) -> list[str]:
    """The names given, if they are modules of `net`, apart from each other, and at least two."""
    modules = dict(net.named_modules())
    for name in blocks:
        if not name or name not in modules:
            hint = near(name, [each for each, _ in net.named_modules() if each])
            raise UsageError(f"blocks: no module {name!r}{hint}; choose from {_choices(net, layers)}")
        outer = next((other for other in blocks if name.startswith(f"{other}.")), None)
        if outer is not None:
            raise UsageError(f"blocks: {name!r} is inside {outer!r}; name one of them")
    if len(set(blocks)) < max(len(blocks), 2):
        raise UsageError(f"blocks: two different modules or more are needed; choose from {_choices(net, layers)}")
    return blocks


def _choices(net: nn.Module, layers: dict[str, nn.Module], most: int = 24) -> str:
    """Names to choose from: the blocks that would be found, else the spiking layers."""
    try:
        names = find_blocks(net, layers)
    except UsageError:
        names = [name for name, _ in net.named_modules() if name]
    return ", ".join(names[:most]) + (", ..." if len(names) > most else "")


def home(name: str, blocks: Collection[str]) -> str | None:
    """The block that a dotted name lies in."""
    return next((block for block in blocks if name == block or name.startswith(f"{block}.")), None)
