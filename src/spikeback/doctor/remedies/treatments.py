"""Settings that help a network, found by trying them on it: what is proposed is what works there."""

import math
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace

from torch import Tensor, nn

from spikeback.doctor.adapters.neurons import neuron_of
from spikeback.doctor.adapters.settings import Setting, Undo, assign, leak_of, line, threshold_of, wider
from spikeback.doctor.causes import LARGE
from spikeback.doctor.measure.case import layouts_of
from spikeback.doctor.measure.feeds import survey
from spikeback.doctor.measure.spikes import Layer, stuck
from spikeback.errors import UsageError
from spikeback.foreign import Layouts
from spikeback.nn import Neuron
from spikeback.ops.surrogate import Rectangle

USUAL = 0.5  # threshold over the spread of the current: that of the authors' code behind a batch norm
LEAKS = (0.25, 0.5, 0.75, 0.9, 1.0)
FACTORS = (2.0, 4.0, 8.0, 16.0)  # by which a surrogate is widened; ours becomes a rectangle as wide as this
IN_REACH = 0.05  # share of membranes inside the surrogate's support, on average over the layers
SETTLED = 0.1  # a threshold that would change by less than this share stays
EXTRA = 10  # rounds in which thresholds are corrected, beyond one for each layer

Layers = dict[str, Layer]  # of a `survey`
Ill = Callable[[Layers], str]


@dataclass(frozen=True)
class Treatment:
    """What to set; `ill` says what is still wrong afterwards, in words, or "". `option`: the same for our command."""

    settings: tuple[Setting, ...]
    names: tuple[str, ...]  # of the layers that are looked at
    ill: Ill
    option: str = ""

    def code(self, net: nn.Module) -> str:
        """The lines to type."""
        text = "\n".join(line(net, setting) for setting in self.settings)
        return f"{text}  # command: {self.option}" if self.option else text

    def apply(self, net: nn.Module, x: Tensor, y: Tensor) -> nn.Module:
        """Set everything. Raises UsageError, and leaves all as it was, if it does not help this network on x."""
        modules = dict(net.named_modules())
        missing = next((name for name in self.names if name not in modules), None)
        if missing is not None:
            raise UsageError(
                f"apply: this remedy is for a network with a layer {missing!r}: diagnose this one for its own"
            )
        undo = assign(net, self.settings)
        try:
            if wrong := self.ill(survey(net, x, len(y), self.names)[0]):
                raise UsageError(
                    f"apply: nothing was changed, as {wrong} on this x even so: diagnose the network on it"
                )
        except BaseException:
            undo()
            raise
        return net


def set_thresholds(net: nn.Module, x: Tensor, batch: int, names: Collection[str]) -> Treatment | None:
    """Thresholds of half the current's spread above its mean for layers that are stuck, or far above theirs.

    A layer whose input comes to life gets another current, so all that were set are set again until nothing changes;
    what is still stuck then gets half of it (if it is silent), or twice.
    """
    chosen, undone, layouts = dict[str, Setting](), list[Undo](), layouts_of(net, x, batch, [*names])
    factors = dict.fromkeys(names, 1.0)
    try:
        for _ in range(len(names) + EXTRA):
            layers = survey(net, x, batch, names, layouts)[0]
            sick = [name for name, layer in layers.items() if stuck(layer.silent, layer.saturated)]
            low = [name for name, layer in layers.items() if layer.current_std > LARGE * (layer.threshold or math.inf)]
            moved = _moved(net, layers, {*sick, *low, *chosen}, factors, chosen)
            if not moved and sick:
                for name in sick:
                    factors[name] *= 0.5 if layers[name].silent > 0.5 else 2.0
                moved = _moved(net, layers, sick, factors, chosen)
            if not moved:
                if sick or not chosen:
                    return None
                return _with_option(_treatment(chosen, names), net, x, layouts)
            chosen |= moved
            undone.append(assign(net, moved.values()))
        return None
    finally:
        for undo in reversed(undone):
            undo()


def _moved(
    net: nn.Module, layers: Layers, wanted: Collection[str], factors: dict[str, float], chosen: dict[str, Setting]
) -> dict[str, Setting]:
    """What the thresholds of these layers should be, where that is not what was chosen already."""
    found = {}
    for name in (name for name in layers if name in wanted):
        module, layer = net.get_submodule(name), layers[name]
        attribute, neuron = threshold_of(module), neuron_of(module)
        scale = 1.0 if neuron is None else neuron.scale
        threshold = factors[name] * scale * (max(layer.current_mean, 0.0) + USUAL * layer.current_std)
        if attribute is not None and layer.current_std > 0 and math.isfinite(threshold):
            value, before = _rounded(attribute.write(threshold)), chosen.get(name)
            if before is None or abs(value - before.value) > SETTLED * abs(before.value):
                found[name] = Setting(name, attribute.name, value)
    return found


def raise_leaks(net: nn.Module, x: Tensor, batch: int, names: Collection[str]) -> Treatment | None:
    """The smallest usual leak (the share of a membrane that is left after a step) with which every layer fires."""
    layouts = layouts_of(net, x, batch, [*names])
    for leak in LEAKS:
        chosen = {}
        for name in names:
            attribute = leak_of(module := net.get_submodule(name))
            now = None if attribute is None else attribute.value(module)
            if attribute is not None and now is not None and now < leak < attribute.most:
                chosen[name] = Setting(name, attribute.name, _rounded(attribute.write(leak)))
        if chosen and _helps(found := _treatment(chosen, names), net, x, layouts):
            return _with_option(found, net, x, layouts)
    return None


def widen(net: nn.Module, x: Tensor, batch: int, names: Collection[str]) -> Treatment | None:
    """Surrogates wide enough that membranes lie where they are not 0: a rectangle for ours, of others the same kind."""
    layouts = layouts_of(net, x, batch, [*names])
    for factor in FACTORS:
        chosen = {}
        for name in names:
            module = net.get_submodule(name)
            found = ("surrogate", Rectangle(factor)) if isinstance(module, Neuron) else wider(module, factor)
            if found is not None:
                chosen[name] = Setting(name, *found)
        if chosen and _helps(found := _treatment(chosen, names, out_of_reach), net, x, layouts):
            return _with_option(found, net, x, layouts)
    return None


def not_firing(layers: Layers) -> str:
    """Names the first layer that is stuck."""
    kinds = {name: stuck(layer.silent, layer.saturated) for name, layer in layers.items()}
    return next((f"layer {name!r} is {kind}" for name, kind in kinds.items() if kind), "")


def out_of_reach(layers: Layers) -> str:
    """Says so if too few membranes lie inside the support of the surrogates."""
    shares = [layer.active for layer in layers.values() if layer.active is not None]
    reached = sum(shares) / max(len(shares), 1)
    return (
        "" if reached >= IN_REACH else f"only {100 * reached:.1f} % of the membranes lie inside the surrogates' support"
    )


def _treatment(chosen: dict[str, Setting], names: Collection[str], ill: Ill = not_firing) -> Treatment:
    return Treatment(tuple(chosen[name] for name in names if name in chosen), tuple(names), ill)


def _with_option(found: Treatment, net: nn.Module, x: Tensor, layouts: Layouts) -> Treatment:
    """The same with the option of our command, if the smallest of its values helps in all layers of ours."""
    if not all(isinstance(net.get_submodule(name), Neuron) for name in found.names):
        return found
    first = min(found.settings, key=lambda s: s.value if isinstance(s.value, float) else 0.0)
    everywhere = replace(found, settings=tuple(replace(first, layer=name) for name in found.names))
    option = f"--model.{first.attribute} " + (
        f"{first.value}" if isinstance(first.value, float) else f"'{first.value}'"
    )
    return replace(found, option=option) if _helps(everywhere, net, x, layouts) else found


def _helps(treatment: Treatment, net: nn.Module, x: Tensor, layouts: Layouts) -> bool:
    """Whether nothing is wrong with the settings made; they are taken back."""
    undo = assign(net, treatment.settings)
    try:
        return not treatment.ill(survey(net, x, layouts.batch, treatment.names, layouts)[0])
    finally:
        undo()


def _rounded(value: float) -> float:
    """Three digits: what is printed is what is set."""
    return float(f"{value:.3g}")
