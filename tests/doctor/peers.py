"""Neurons of other frameworks, from their own packages, and how each is run."""

import importlib
import warnings
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor

from spikeback.doctor.adapters.neurons import Neuron

RESET = "norse.torch.functional.reset"


def need(name: str) -> Any:
    """A module of a framework; the test is skipped where that is absent."""
    with warnings.catch_warnings():  # norse compiles functions when it is imported
        warnings.filterwarnings("ignore", "`torch.jit.script` is deprecated", FutureWarning)
        pytest.importorskip(name.partition(".")[0], reason=f"{name} is absent: pip install 'spikeback[peers]'")
        return importlib.import_module(name)


def jelly(kind: str, surrogate: str = "ATan", **options: Any) -> Any:
    function = getattr(need("spikingjelly.activation_based.surrogate"), surrogate)()
    node = getattr(need("spikingjelly.activation_based.neuron"), kind)
    return node(surrogate_function=function, step_mode="m", **options)


def torch_neuron(kind: str, surrogate: str = "atan", **options: Any) -> Any:
    function = getattr(need("snntorch.surrogate"), surrogate)()
    return getattr(need("snntorch"), kind)(spike_grad=function, **options)


def norse_cell(kind: str, method: str = "super", **options: Any) -> Any:
    frame = need("norse.torch")
    tensors = {name: torch.tensor(value) if isinstance(value, float) else value for name, value in options.items()}
    parameters = getattr(frame, f"{kind.removesuffix('Cell')}Parameters")
    return getattr(frame, kind)(parameters(method=method, alpha=torch.tensor(2.0), **tensors))


def sinabs_layer(kind: str, spike: str = "MultiSpike", reset: str = "MembraneSubtract", **options: Any) -> Any:
    activation = need("sinabs.activation")
    reset_fn, spike_fn = getattr(activation, reset)(), getattr(activation, spike)
    return getattr(need("sinabs.layers"), kind)(spike_fn=spike_fn, reset_fn=reset_fn, **options)


# Neurons whose recursion is leak * post(u) + scale * x ...
PLAIN = {
    "jelly_if": partial(jelly, "IFNode"),
    "jelly_if_soft_detached": partial(jelly, "IFNode", "Sigmoid", v_reset=None, detach_reset=True, v_threshold=0.7),
    "jelly_lif": partial(jelly, "LIFNode", tau=1.7, v_threshold=0.5),
    "jelly_lif_soft": partial(jelly, "LIFNode", tau=4 / 3, decay_input=False, v_reset=None),
    "jelly_lif_detached": partial(jelly, "LIFNode", "PiecewiseQuadratic", tau=3.0, detach_reset=True),
    "jelly_plif": partial(jelly, "ParametricLIFNode", init_tau=1.5, v_threshold=0.6),
    "jelly_plif_soft": partial(jelly, "ParametricLIFNode", decay_input=False, v_reset=None),
    "jelly_simple": partial(jelly, "SimpleLIFNode", tau=1.5, decay_input=True),
    "snntorch_zero": partial(torch_neuron, "Leaky", beta=0.8, threshold=0.5, reset_mechanism="zero"),
    "snntorch_zero_at_once": partial(torch_neuron, "Leaky", beta=0.8, reset_mechanism="zero", reset_delay=False),
    "snntorch_none": partial(torch_neuron, "Leaky", "fast_sigmoid", beta=0.8, reset_mechanism="none"),
    "snntorch_lapicque_none": partial(torch_neuron, "Lapicque", beta=0.6, reset_mechanism="none"),
    "norse_box": partial(norse_cell, "LIFBoxCell", tau_mem_inv=750.0, v_th=0.5),
    "norse_box_soft": lambda: norse_cell(
        "LIFBoxCell", "tanh", tau_mem_inv=750.0, v_th=0.5, reset_method=need(RESET).reset_subtract
    ),
    "norse_iaf_cell": partial(norse_cell, "IAFCell", "triangle"),
    "norse_iaf": partial(norse_cell, "IAF"),
    "sinabs_lif": partial(sinabs_layer, "LIF", tau_mem=3.0),
    "sinabs_lif_hard": partial(sinabs_layer, "LIF", "SingleSpike", "MembraneReset", tau_mem=3.0, norm_input=False),
    "sinabs_lif_once": partial(sinabs_layer, "LIF", "SingleSpike", tau_mem=3.0, norm_input=False),
    "sinabs_lif_alphas": partial(sinabs_layer, "LIF", tau_mem=3.0, train_alphas=True),
    "sinabs_iaf": partial(sinabs_layer, "IAF", spike_threshold=torch.tensor(0.6)),
}
# ... and those whose recursion is another one
OTHER = {
    "jelly_lif_reset_below": partial(jelly, "LIFNode", tau=1.7, v_reset=-0.3),
    "snntorch_subtract": partial(torch_neuron, "Leaky", beta=0.8),
    "snntorch_subtract_at_once": partial(torch_neuron, "Leaky", beta=0.8, threshold=0.3, reset_delay=False),
    "snntorch_graded": partial(torch_neuron, "Leaky", beta=0.8, reset_mechanism="zero", graded_spikes_factor=1.5),
    "snntorch_lapicque": partial(torch_neuron, "Lapicque", R=1, C=1.5),
    "snntorch_lapicque_zero": partial(torch_neuron, "Lapicque", beta=0.6, reset_mechanism="zero"),
    "norse_lif_cell": partial(norse_cell, "LIFCell", "circ", tau_mem_inv=400.0, v_th=0.4),
    "norse_lif": partial(norse_cell, "LIF", tau_mem_inv=400.0, v_th=0.4),
    "norse_lif_biased": partial(norse_cell, "LIFCell", tau_mem_inv=400.0, v_th=0.5, v_leak=0.1, v_reset=-0.2),
    "sinabs_lif_hard_many": partial(sinabs_layer, "LIF", reset="MembraneReset", tau_mem=3.0, norm_input=False),
    "sinabs_lif_synapse": partial(sinabs_layer, "LIF", tau_mem=3.0, tau_syn=2.0, min_v_mem=-0.1, norm_input=False),
}
CASES = PLAIN | OTHER


def run(layer: Any, x: Tensor) -> Tensor:
    """Currents (T, B, N) -> spikes (T, B, N) from rest, as each framework is called."""
    framework = type(layer).__module__.partition(".")[0]
    if framework == "spikingjelly":
        layer.reset()
        return layer(x)
    if framework == "sinabs":
        layer.reset_states()
        return layer(x.transpose(0, 1)).transpose(0, 1)
    if framework == "norse" and not type(layer).__name__.endswith("Cell"):
        return layer(x)[0]
    spikes, state = [], layer.reset_mem() if framework == "snntorch" else None
    for x_t in x:
        s, state = layer(x_t, state)
        spikes.append(s)
    return torch.stack(spikes)


def fires(neuron: Neuron, layer: Any, u: Tensor) -> Tensor:
    """The spikes of a membrane: SpikingJelly and sinabs fire when the threshold is reached, the others beyond it."""
    framework = type(layer).__module__.partition(".")[0]
    if framework == "sinabs" and layer.spike_fn.__name__ == "MultiSpike":
        return (u / neuron.threshold).trunc().clamp_min(0)
    s = u >= neuron.threshold if framework in ("spikingjelly", "sinabs") else u > neuron.threshold
    return s * getattr(layer, "graded_spikes_factor", 1.0)
