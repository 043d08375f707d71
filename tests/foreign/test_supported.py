"""README's table of what is known of the networks of four frameworks is what these tests find."""

from pathlib import Path

import torch

import spikeback as sb
from spikeback.doctor.adapters import spikes
from spikeback.doctor.neurons import neuron_of
from spikeback.doctor.settings import threshold_of

from ..doctor.peer_classes import neurons
from ..doctor.peers import need
from .test_peers import NETS, K, made

README = Path(__file__).parents[2] / "README.md"
PACKAGES = {"SpikingJelly": "spikingjelly", "snnTorch": "snntorch", "norse": "norse", "sinabs": "sinabs"}


def of_neurons(framework: str) -> dict[str, str]:
    """How many of the neuron classes that a package offers are known, and how far."""
    modules = [make() for make in neurons()[framework].values()]
    spiking = [module for module in modules if spikes(module)]
    share = lambda some: f"{len(some)} of {len(spiking)}"
    return {
        "neuron classes recognised": str(len(modules)),
        "that spike, with the membrane replayed exactly": share([m for m in spiking if neuron_of(m) is not None]),
        "that spike, with a threshold that remedies can set": share([m for m in spiking if threshold_of(m)]),
    }


def of_networks(framework: str) -> dict[str, str]:
    """What works on the networks of `NETS`, of how many."""
    wanted = {  # of every block, in the rows of a diagnosis
        "branches, rates, fidelity, gradients by time step": ("fidelity", "gradient_by_step", "rate"),
        "gain predicted by theory": ("predicted",),
        "compared with its ReLU twin": ("relu",),
    }
    counts = dict.fromkeys(wanted, 0)
    names = [name for name in NETS if name.split()[0] == PACKAGES[framework]]
    for name in names:
        net, x, taps, layers = made(name, 4, 8)
        sb.ShortcutNet(net, taps=taps, num_classes=K, example=x)
        passes = ("fidelity", "theory")
        found = sb.diagnose(net, x, torch.arange(8) % K, blocks=layers, passes=passes)
        whole = lambda key, found=found: all(row[key] is not None for row in found.blocks)
        for label, keys in wanted.items():
            counts[label] += all(map(whole, keys))
    return {f"networks tried: {label}": f"{count} of {len(names)}" for label, count in counts.items()}


def table() -> str:
    """The table, a column a framework."""
    columns = {name: of_neurons(name) | of_networks(name) for name in PACKAGES}
    lines = [f"| | {' | '.join(columns)} |", f"|---|{'---:|' * len(columns)}"]
    for label in next(iter(columns.values())):
        lines.append(f"| {label} | {' | '.join(column[label] for column in columns.values())} |")
    return "\n".join(lines)


def test_readme_says_what_is_supported_how_far() -> None:
    for package in PACKAGES.values():
        need(package)
    assert table() in README.read_text(encoding="utf-8")
