"""Every neuron class of four frameworks, one instance each, and what the doctor knows of it, as a table."""

import inspect
from collections.abc import Callable
from itertools import groupby
from typing import Any

import torch
from torch import nn

from spikeback.doctor.adapters.families import reads_out, spikes
from spikeback.doctor.adapters.neurons import neuron_of
from spikeback.doctor.adapters.settings import leak_of, threshold_of

from .peers import need

N = 6  # neurons


def neurons() -> dict[str, dict[str, Callable[[], Any]]]:
    """Framework -> class -> how one is made."""
    return {"SpikingJelly": jelly(), "snnTorch": snntorch(), "norse": norse(), "sinabs": sinabs()}


def jelly() -> dict[str, Callable[[], Any]]:
    neuron, rnn = need("spikingjelly.activation_based.neuron"), need("spikingjelly.activation_based.rnn")
    table = lambda: neuron.FewSpikeTable([1.0, 0.5], [1.0, 0.5], [1.0, 0.5])
    arguments: dict[str, Callable[[type], Any]] = {
        "SimpleLIFNode": lambda c: c(2.0, False),
        "PSN": lambda c: c(T=4),
        "MaskedPSN": lambda c: c(k=2, T=4, lambda_init=1.0),
        "SlidingPSN": lambda c: c(k=2),
        "GatedLIFNode": lambda c: c(T=4),
        "FlexSN": lambda c: c(lambda x, v: ((v + x > 1).to(x), v + x), num_states=1),
        "FewSpikeNode": lambda c: c(table()),
        "HGNode": lambda c: c([table()], []),
        "OutlierAwareThresholdNode": lambda c: c(table(), table(), 1.0),
        "STBIFNode": lambda c: c(0.5, level=4),
        "LIAFNode": lambda c: c(torch.relu, False),
        "MPBNBaseNode": lambda c: c(out_features=N),
        "MPBNLIFNode": lambda c: c(out_features=N),
        "NoisyBaseNode": lambda c: c(N),
        "NoisyCUBALIFNode": lambda c: c(N),
        "NoisyNonSpikingBaseNode": lambda c: c(N),
        "NoisyNonSpikingIFNode": lambda c: c(N),
    }
    arguments |= dict.fromkeys(("ILCBaseNode", "ILCIFNode", "ILCLIFNode", "ILCCUBALIFNode"), lambda c: c(3, 2))
    # The constructors of these two set an attribute before nn.Module allows it.
    arguments |= dict.fromkeys(("NoisyILCBaseNode", "NoisyILCCUBALIFNode"), without_constructor)
    cells = {name: cls for name, cls in classes(rnn).items() if "Base" not in name}
    arguments |= {name: lambda c: c(N, N) if "Cell" in c.__name__ else c(N, N, 1) for name in cells}
    made = lambda name, cls: lambda: arguments.get(name, lambda c: c())(cls)
    return {name: made(name, cls) for name, cls in (classes(neuron) | cells).items()}


def snntorch() -> dict[str, Callable[[], Any]]:
    frame = need("snntorch")
    arguments: dict[str, Callable[[type], Any]] = {
        "SpikingNeuron": lambda c: c(),
        "LIF": lambda c: c(beta=0.5),
        "Leaky": lambda c: c(beta=0.5),
        "Lapicque": lambda c: c(beta=0.5),
        "DeltaLeaky": lambda c: c(beta=0.5),
        "StateLeaky": lambda c: c(beta=0.5, channels=N),
        "LinearLeaky": lambda c: c(beta=0.5, in_features=N, out_features=N),
        "AssociativeLeaky": lambda c: c(N, 2, 3, 6, use_q_projection=False),
        "Alpha": lambda c: c(alpha=0.9, beta=0.5),
        "Synaptic": lambda c: c(alpha=0.9, beta=0.5),
        "RLeaky": lambda c: c(beta=0.5, linear_features=N),
        "RSynaptic": lambda c: c(alpha=0.9, beta=0.5, linear_features=N),
        "SLSTM": lambda c: c(N, N),
        "SConv2dLSTM": lambda c: c(1, 1, 3),
        "LeakyParallel": lambda c: c(N, N, beta=0.5),
        "LeakyKernel": lambda c: c(N, N, beta=0.5),
    }
    hidden = {"LeakyKernel": need("snntorch._neurons.leakykernel").LeakyKernel}  # the package does not offer it
    made = lambda name, cls: lambda: arguments[name](cls)
    spare = "GradedSpikes"  # a factor for spikes, no neuron
    return {name: made(name, cls) for name, cls in (classes(frame) | hidden).items() if name != spare}


def norse() -> dict[str, Callable[[], Any]]:
    frame = need("norse.torch")
    tonic = need("norse.torch.functional.izhikevich").tonic_spiking
    aside = ("Conv", "VGG", "MobileNet", "Encoder", "Lift", "Regularization", "Sequential", "Receptive", "Decoder")
    found = {}
    for name, cls in classes(frame).items():
        if any(part in name for part in aside):
            continue
        if "Izhikevich" in name:
            sizes = (N, N) if "Recurrent" in name else ()
            found[name] = lambda c=cls, s=sizes: c(*s, spiking_method=tonic)
        elif any(part in name for part in ("Recurrent", "Linear", "Coba", "Correlation")):
            found[name] = lambda c=cls: c(N, N)
        else:
            found[name] = cls
    return found


def sinabs() -> dict[str, Callable[[], Any]]:
    layers = need("sinabs.layers")
    found = {}
    for name, cls in classes(layers).items():
        options: dict[str, Any] = {} if "IAF" in name else {"tau_mem": 3.0}
        options |= {"tau_adapt": 9.0} if "ALIF" in name else {}
        options |= {"rec_connect": nn.Linear(N, N)} if "Recurrent" in name else {}
        options |= {"batch_size": 2} if "Squeeze" in name else {}
        if issubclass(cls, layers.StatefulLayer) and cls is not layers.StatefulLayer:
            found[name] = lambda c=cls, o=options: c(**o)
    return found


def classes(module: Any) -> dict[str, type]:
    """The modules that a package offers, by name."""
    return {
        n: c for n, c in vars(module).items() if inspect.isclass(c) and issubclass(c, nn.Module) and c is not nn.Module
    }


def without_constructor(cls: Any) -> Any:
    module = cls.__new__(cls)
    nn.Module.__init__(module)
    module.v_threshold = 1.0
    return module


def row(module: nn.Module) -> tuple[str, str, str, str]:
    """What a class puts out, whether its membrane can be replayed, and what remedies can set."""
    kind = "spikes" if spikes(module) else "membrane" if reads_out(module) else "?"
    threshold, leak = threshold_of(module), leak_of(module)
    if kind != "spikes":
        return kind, "–", "–", "–"
    known = "replayed" if neuron_of(module) is not None else "–"
    name = lambda attribute: f"`{attribute.name}`" if attribute else "–"
    return kind, known, name(threshold), name(leak)


def table() -> str:
    """The table of docs/doctor.md: classes of one framework of which the same is known share a row."""
    lines = ["| framework | neurons | put out | membrane | threshold | leak |", "|---|---|---|---|---|---|"]
    for framework, made in neurons().items():
        rows = sorted((row(make()), name) for name, make in made.items())
        for what, group in groupby(rows, key=lambda pair: pair[0]):
            lines.append(f"| {framework} | {', '.join(name for _, name in group)} | {' | '.join(what)} |")
    return "\n".join(lines)
