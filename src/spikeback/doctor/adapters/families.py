"""Neurons of other frameworks, recognised by the names of their classes: none of the frameworks is imported.

One function a framework: (class name, module) -> `Neuron`, or None for a class or a setting that it does not know. Each
recursion is written in the order of operations of the framework, so that the replayed membrane is the same number.
"""

import sys
from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor, nn

from spikeback.doctor.adapters.recursion import Neuron, number, replay, slope

NEURONS = {  # classes that spike, and all that derive from them
    "spikingjelly": {
        "BaseNode", "SimpleBaseNode", "ILCBaseNode", "NoisyBaseNode", "PSN", "MaskedPSN", "SlidingPSN", "GatedLIFNode",
        "DSRIFNode", "DSRLIFNode", "ActivationAwareIFNode", "FewSpikeNode", "FlexSN", "STBIFNode", "SpikingRNNBase",
        "SpikingRNNCellBase",
    },
    "snntorch": {"SpikingNeuron", "LeakyParallel", "LeakyKernel"},
    "norse": {"SNN", "SNNCell", "SNNRecurrent", "SNNRecurrentCell", "CobaLIFCell", "LIFCorrelation"},
    "sinabs": {"StatefulLayer"},
}  # fmt: skip
READOUTS = {  # classes that put out a membrane
    "spikingjelly": {"NonSpikingBaseNode", "NoisyNonSpikingBaseNode"},
    "snntorch": set[str](),  # StateLeaky, LinearLeaky with output=False: see `reads_out`
    "norse": {"LI", "LICell", "LIBoxCell", "LILinearCell", "ExpFilter"},
    "sinabs": {"ExpLeak"},
}
MIXED = {"AssociativeLeaky"}  # its spikes stay inside, times a matrix: what it puts out is neither
COUNTING = {"ILIFNode", "LIAFNode"}  # SpikingJelly's that put out a number of spikes, or what stands for it
RESETS: dict[str, Literal["hard", "soft", "none"]] = {"subtract": "soft", "zero": "hard", "none": "none"}  # snnTorch's


def ancestors(module: nn.Module) -> list[tuple[str, str]]:
    """(framework, class name) of the classes of `module` that belong to a known framework, the nearest first."""
    classes = [(cls.__module__.partition(".")[0], cls.__name__) for cls in type(module).__mro__]
    return [(framework, name) for framework, name in classes if framework in NEURONS]


def origin(module: nn.Module) -> tuple[str, str]:
    """Framework and class of a neuron: of a user's subclass the framework's class; ("", "") of anything else."""
    return next(iter(ancestors(module)), ("", ""))


def spikes(module: nn.Module) -> bool:
    """Whether `module` is a spiking neuron of a known framework."""
    classes = ancestors(module)
    mixed = any(name in MIXED for _, name in classes) and getattr(module, "to_q", None) is not None
    return any(name in NEURONS[framework] for framework, name in classes) and not (mixed or reads_out(module))


def reads_out(module: nn.Module) -> bool:
    """Whether `module` is a neuron of a known framework that puts out its membrane and never spikes."""
    classes = ancestors(module)
    quiet = getattr(module, "does_spike", None) is False  # sinabs
    quiet = quiet or (getattr(module, "output", None) is False and any(name == "StateLeaky" for _, name in classes))
    return bool(classes) and (quiet or any(name in READOUTS[framework] for framework, name in classes))


def events(module: nn.Module, spikes: Tensor) -> Tensor:
    """How many spikes each entry of a layer's output is: in some neurons a spike has a height, a sign, or noise on it.

    What other packages' layers put out is taken as it is.
    """
    classes = ancestors(module)
    names = {name for _, name in classes}
    if not classes:
        return spikes
    if "NoisyBaseNode" in names:
        return spikes.round().abs()
    return spikes.abs() if classes[0][0] == "sinabs" or names & COUNTING else (spikes != 0).to(spikes.dtype)


def spikingjelly(name: str, node: Any) -> Neuron | None:
    """v - (v - rest) q + x, or v + (x - (v - rest)) q with `decay_input`; q = 1 / tau; fired at when reached."""
    if name in ("PSN", "MaskedPSN", "SlidingPSN"):
        return parallel(name, node)
    integrates = name in ("IFNode", "SimpleIFNode")
    threshold, to = number(node.v_threshold), node.v_reset
    if not (integrates or name in ("LIFNode", "SimpleLIFNode", "ParametricLIFNode")) or threshold is None:
        return None
    rest = 0.0 if to is None else to

    def leaked(difference: Any) -> Any:
        return difference * node.w.sigmoid() if name == "ParametricLIFNode" else difference / node.tau

    def step(v: Any, x: Tensor, s: Tensor) -> tuple[Tensor, Tensor]:
        if integrates:
            u = v + x
        elif node.decay_input:
            u = v + leaked(x - (v - rest))
        else:
            u = v - leaked(v - rest) + x
        return u, u - s * node.v_threshold if to is None else s * to + (1 - s) * u

    q = 0.0 if integrates else number(leaked(1.0))
    leak = None if q is None or rest != 0 else 1 - q
    scale = q if q is not None and not integrates and node.decay_input else 1.0
    derivative = slope(lambda u: node.surrogate_function(u - node.v_threshold))
    reset = "soft" if to is None else "hard"
    return Neuron(threshold, leak, scale, reset, node.detach_reset, replay(step, rest), derivative)


def parallel(name: str, node: Any) -> Neuron | None:
    """A parallel spiking neuron: W x over the time steps, all at once, fired at when it reaches -bias."""
    bias = number(node.bias)
    if bias is None or bias >= 0 or getattr(node, "step_mode", "m") != "m":
        return None

    def weights(steps: int) -> Tensor:
        if name == "PSN":
            return node.weight
        return node.masked_weight() if name == "MaskedPSN" else node.gen_gemm_weight(steps)

    @torch.no_grad()
    def membrane(current: Tensor, spikes: Tensor) -> Tensor:
        x = current.float()
        return torch.addmm(node.bias, weights(len(x)), x.flatten(1)).view(x.shape) - bias

    scale = weights(node.k if name == "SlidingPSN" else node.T).detach()[-1].norm().item()
    return Neuron(-bias, None, scale, "none", False, membrane, slope(lambda u: node.surrogate_function(u + bias)))


def snntorch(name: str, layer: Any) -> Neuron | None:
    """beta v + x; the reset of a spike comes with the next current (detached) unless `reset_delay` is off.

    "subtract" takes V_th after the leak, beta u - V_th s + x, and Lapicque's "zero" takes the next current as well:
    neither is `leak * post(u) + scale * x`.
    """
    threshold, kind = number(layer.threshold), layer.reset_mechanism
    if name not in ("Leaky", "Lapicque") or threshold is None or layer.state_quant or layer.inhibition:
        return None
    leaky, late = name == "Leaky", getattr(layer, "reset_delay", True)

    def integrated(v: Any, x: Tensor) -> Tensor:
        if leaky:
            return layer.beta.clamp(0, 1) * v + x
        r, c, dt = layer.R, layer.C, layer.time_step
        return x * r * (1 / (r * c)) * dt + (1 - dt / (r * c)) * v

    def step(state: Any, x: Tensor, s: Tensor) -> tuple[Tensor, Any]:
        v, resets = state
        u = integrated((1 - resets) * v if leaky and kind == "zero" else v, x)
        if kind != "none" and not (leaky and kind == "zero"):
            u = u - resets * (layer.threshold if kind == "subtract" else u)
        fired = s / layer.graded_spikes_factor
        if late:
            return u, (u, fired)
        v = u - (fired - resets) * {"subtract": layer.threshold, "zero": u, "none": 0.0}[kind]
        return u, (v, (v > layer.threshold).float())

    leak = number(layer.beta.clamp(0, 1) if leaky else 1 - layer.time_step / (layer.R * layer.C))
    scale = 1.0 if leaky else number(layer.time_step / layer.C)
    plain = kind == "none" or (leaky and kind == "zero" and number(layer.graded_spikes_factor) == 1)
    reset = RESETS[kind]
    membrane, derivative = replay(step, (0.0, 0.0)), slope(layer.fire)
    return Neuron(threshold, leak if plain else None, scale or 1.0, reset, late, membrane, derivative)


def norse(name: str, layer: Any) -> Neuron | None:
    """v + dt / tau_mem (rest - v + i), i the current itself (LIFBox) or filtered (LIF); IAF is v + x."""
    p, dt = layer.p, layer.dt
    threshold, kind = number(p.v_th), name.removesuffix("Cell")
    if kind not in ("IAF", "LIF", "LIFBox") or threshold is None or p.method == "adjoint":
        return None
    resets = getattr(p, "reset_method", reset_value)

    def step(state: Any, x: Tensor, s: Tensor) -> tuple[Tensor, Any]:
        v, i = state
        if kind == "IAF":
            u = v + x
        elif kind == "LIFBox":
            u = v + dt * p.tau_mem_inv * (x + p.v_leak - v)
        else:
            i = i + x
            u = v + dt * p.tau_mem_inv * ((p.v_leak - v) + i)
            i = i + -dt * p.tau_syn_inv * i
        return u, (resets(s, u, p.v_reset, p.v_th), i)

    def fire(u: Tensor) -> Tensor:  # the framework is loaded, as the layer exists
        return sys.modules["norse.torch.functional.threshold"].threshold(u - p.v_th, p.method, p.alpha)

    rest = p.v_reset if kind == "IAF" else p.v_leak
    scale = 1.0 if kind == "IAF" else number(dt * p.tau_mem_inv)
    method = getattr(resets, "__name__", "")
    soft = method == "reset_subtract"
    plain = soft or (method == "reset_value" and number(p.v_reset) == 0)
    plain = plain and kind != "LIF" and number(rest) == 0
    leak = (1.0 if kind == "IAF" else 1 - scale) if plain and scale is not None else None
    membrane = replay(step, (rest, 0.0))
    return Neuron(threshold, leak, scale or 1.0, "soft" if soft else "hard", False, membrane, slope(fire))


def sinabs(name: str, layer: Any) -> Neuron | None:
    """alpha v + i, or alpha v + (1 - alpha) i with `norm_input`; may fire several times a step; batch first."""
    threshold = None if layer.spike_threshold is None else number(layer.spike_threshold)
    states = getattr(layer.spike_fn, "required_states", None)  # a custom one may look at more than the membrane
    if name.removesuffix("Squeeze") not in ("LIF", "IAF") or threshold is None or states != ["v_mem"]:
        return None

    def step(state: Any, x: Tensor, s: Tensor) -> tuple[Tensor, Any]:
        v, i = state
        alpha, alpha_syn, low = layer.alpha_mem_calculated, layer.alpha_syn_calculated, layer.min_v_mem
        i = x if alpha_syn is None else alpha_syn * (i + x)
        u = alpha * v + ((1 - alpha) * i if layer.norm_input else i)
        v = layer.reset_fn(s, {"v_mem": u, "i_syn": i}, layer.spike_threshold)["v_mem"]
        return u, (v if low is None else (v - low).relu() + low, i)

    def fire(u: Tensor) -> Tensor:
        return layer.spike_fn.apply(u, layer.spike_threshold, layer.surrogate_grad_fn)

    soft = type(layer.reset_fn).__name__ == "MembraneSubtract"
    once = getattr(layer.spike_fn, "__name__", "") == "SingleSpike"
    if soft:
        plain = layer.reset_fn.subtract_value in (None, threshold)
    else:
        plain = type(layer.reset_fn).__name__ == "MembraneReset" and layer.reset_fn.reset_value == 0 and once
    plain = plain and layer.alpha_syn_calculated is None and layer.min_v_mem is None
    alpha = number(layer.alpha_mem_calculated)
    scale = 1.0 if alpha is None or not layer.norm_input else 1 - alpha
    reset = "soft" if soft else "hard"
    membrane = replay(step, (0.0, 0.0))
    return Neuron(threshold, alpha if plain else None, scale, reset, not soft, membrane, slope(fire))


def reset_value(s: Tensor, u: Tensor, to: Tensor, _threshold: Tensor) -> Tensor:
    """The reset of norse's neurons that leave no choice."""
    return (1 - s) * u + s * to


ADAPTERS: dict[str, Callable[[str, Any], Neuron | None]] = {
    "spikingjelly": spikingjelly,
    "snntorch": snntorch,
    "norse": norse,
    "sinabs": sinabs,
}
