"""Thresholds, leaks and surrogates of spiking layers, by the names that their frameworks give them.

A remedy is a list of settings: what it prints is what it sets, digit for digit.
"""

import copy
import dataclasses
import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

from spikeback.doctor.adapters.families import ancestors
from spikeback.doctor.adapters.recursion import number
from spikeback.nn import LIF, Neuron
from spikeback.ops.surrogate import Surrogate

Undo = Callable[[], None]
Map = Callable[[float], float]


@dataclasses.dataclass(frozen=True)
class Attribute:
    """Where a layer keeps a number: `name`, which may be dotted (norse: "p.v_th"), and how it counts it.

    `write` turns our number (threshold: of the membrane; leak: what is left of a membrane after one step) into the
    framework's, `read` does the opposite.
    """

    name: str
    write: Map = float
    read: Map = float
    most: float = math.inf  # our number must be below

    def value(self, module: nn.Module) -> float | None:
        """Our number; None if it differs from neuron to neuron."""
        found = number(_find(module, self.name))
        return None if found is None else self.read(found)


@dataclasses.dataclass(frozen=True)
class Setting:
    """One attribute of one layer and what it is to be: a number, or a surrogate."""

    layer: str
    attribute: str
    value: Any


def logit(p: float) -> float:
    """The opposite of `sigmoid`, for shares that are neither 0 nor 1."""
    p = min(max(p, 1e-3), 1 - 1e-3)
    return math.log(p / (1 - p))


def sigmoid(z: float) -> float:
    """1 / (1 + exp(-z))."""
    return 1 / (1 + math.exp(-z))


THRESHOLDS = {  # of these classes and what derives from them; other classes have their family's
    "PSN": Attribute("bias", lambda v: -v, lambda b: -b),
    "MaskedPSN": Attribute("bias", lambda v: -v, lambda b: -b),
    "SlidingPSN": Attribute("bias", lambda v: -v, lambda b: -b),
    "GatedLIFNode": Attribute("v_threshold", logit, sigmoid),
    "STBIFNode": Attribute("q_threshold"),
    "DeltaLeaky": Attribute("delta_threshold"),
    "ALIF": Attribute("b0"),  # sinabs: its spike_threshold is a state that rests here
}
FAMILIES = {  # the first that the layer has
    "spikingjelly": ("v_threshold",),
    "snntorch": ("threshold",),
    "norse": ("p.v_th", "p.lif.v_th", "p.lif_adex.v_th", "p.v_thresh", "p.lif_parameters.v_th"),
    "sinabs": ("spike_threshold",),
}
NODES = {"BaseNode", "SimpleBaseNode"}  # SpikingJelly's, in which tau means what it means in LIFNode
LEARNT = {"ParametricLIFNode"}  # SpikingJelly's, whose leak is the sigmoid of w
LEAKY = {"Leaky", "Synaptic", "RLeaky", "RSynaptic"}  # snnTorch's whose membrane is multiplied by beta
WIDTHS = {"grad_width": 1.0, "sigma": 1.0, "window": 1.0, "alpha": -1.0}  # sinabs'; SpikingJelly's alpha is the inverse


def threshold_of(module: nn.Module) -> Attribute | None:
    """Where a layer keeps its threshold; None if nowhere that is known."""
    if isinstance(module, Neuron):
        return Attribute("threshold")
    classes = ancestors(module)
    if getattr(module, "learnable_vth", False) or getattr(module, "fold_bn", False):
        return None  # SpikingJelly's MPBN nodes fire by another number then
    own = [THRESHOLDS[name] for _, name in classes if name in THRESHOLDS]
    usual = [Attribute(name) for family, _ in classes[:1] for name in FAMILIES[family]]
    return next((a for a in own or usual if _find(module, a.name) is not None), None)


def leak_of(module: nn.Module) -> Attribute | None:
    """Where a layer keeps its leak, the share of the membrane that is left after a step; None if nowhere."""
    if isinstance(module, Neuron):
        return Attribute("tau") if isinstance(module, LIF) else None
    names, dt = {name for _, name in ancestors(module)}, getattr(module, "dt", 1.0)
    choices = {
        "spikingjelly": [
            *([Attribute("tau", lambda leak: 1 / (1 - leak), lambda tau: 1 - 1 / tau, 1.0)] if names & NODES else []),
            *([Attribute("w", lambda leak: logit(1 - leak), lambda w: 1 - sigmoid(w), 1.0)] if names & LEARNT else []),
            Attribute("v_decay"),
        ],
        "snntorch": [Attribute("beta")] if names & LEAKY else [],
        "norse": [Attribute("p.tau_mem_inv", lambda leak: (1 - leak) / dt, lambda q: 1 - dt * q, 1.0)],
        "sinabs": [
            Attribute("tau_mem", lambda leak: -1 / math.log(leak), lambda tau: math.exp(-1 / tau), 1.0),
            Attribute("alpha_mem"),
        ],
    }
    known = [a for family, _ in ancestors(module)[:1] for a in choices[family]]
    return next((a for a in known if _find(module, a.name) is not None), None)


def wider(module: nn.Module, factor: float) -> tuple[str, Any] | None:
    """A surrogate of the same kind, `factor` times as wide, and the attribute it belongs to; None if none is known."""
    for name in ("surrogate_function", "surrogate_grad_fn"):  # SpikingJelly's, sinabs'
        old = getattr(module, name, None)
        width = next((w for w in WIDTHS if isinstance(getattr(old, w, None), float)), None)
        if ancestors(module) and width is not None:
            new = copy.deepcopy(old)  # the old one may be the default of every layer of the process
            setattr(new, width, getattr(old, width) * factor ** WIDTHS[width])
            return name, new
    return None


def assign(net: nn.Module, settings: Iterable[Setting]) -> Undo:
    """Set attributes, each in its kind (number, tensor, parameter, field of a named tuple) -> what takes it all back.

    Tensors are replaced, not written to: a framework may share one of them among all its layers.
    """
    undone = [_assign(net.get_submodule(s.layer), s.attribute, s.value) for s in settings]

    def undo() -> None:
        for back in reversed(undone):
            back()

    return undo


def _assign(module: nn.Module, name: str, value: Any) -> Undo:
    outer, *inner = name.split(".")
    old: Any = getattr(module, outer)
    leaf = _find(module, name)
    if isinstance(leaf, nn.Parameter):
        before = leaf.data
        leaf.data = torch.full_like(before, value)
        return lambda: setattr(leaf, "data", before)
    setattr(module, outer, _replaced(old, inner, value))
    return lambda: setattr(module, outer, old)


def _replaced(old: Any, names: list[str], value: Any) -> Any:
    """The same named tuple with one field replaced, or the value itself in the kind of the old one."""
    if names:
        return old._replace(**{names[0]: _replaced(getattr(old, names[0]), names[1:], value)})
    if isinstance(old, Tensor):
        whole = not old.is_floating_point()  # snnTorch keeps threshold=1 as an integer
        return torch.full_like(old, value, dtype=torch.get_default_dtype() if whole else None)
    return value


def line(net: nn.Module, setting: Setting) -> str:
    """The setting as a line of Python, for a network that is called `net`."""
    owner = path(net, setting.layer)
    outer, *inner = setting.attribute.split(".")
    old = _find(net.get_submodule(setting.layer), setting.attribute)
    target = f"{owner}.{setting.attribute}"
    if not isinstance(setting.value, Surrogate | float):
        width = next(w for w in WIDTHS if isinstance(getattr(setting.value, w, None), float))
        return f"{target} = copy.deepcopy({target}); {target}.{width} = {getattr(setting.value, width)}"
    value = f"sb.surrogate.{setting.value}" if isinstance(setting.value, Surrogate) else str(setting.value)
    if isinstance(old, nn.Parameter):
        return f"{target}.data = torch.full_like({target}, {value})"
    if isinstance(old, Tensor):
        kind = "" if old.is_floating_point() else ", dtype=torch.get_default_dtype()"
        value = f"torch.full_like({target}, {value}{kind})"
    for i in reversed(range(len(inner))):
        value = f"{'.'.join([owner, outer, *inner[:i]])}._replace({inner[i]}={value})"
    return f"{owner}.{outer} = {value}"


def path(net: nn.Module, name: str) -> str:
    """`layer1.0.lif` -> `net.layer1[0].lif`."""
    text, module = "net", net
    for part in name.split(".") if name else []:
        numbered = isinstance(module, nn.Sequential | nn.ModuleList)
        text += f"[{part}]" if numbered and part.isdigit() else f".{part}" if part.isidentifier() else ""
        text += "" if part.isidentifier() or (numbered and part.isdigit()) else f".get_submodule({part!r})"
        module = module.get_submodule(part)
    return text


def _find(module: nn.Module, name: str) -> Any:
    """The attribute behind a dotted name; None if there is none."""
    found: Any = module
    for part in name.split("."):
        found = getattr(found, part, None)
    return found
