"""What is known of the networks of four frameworks, counted; README shows it.

`SPIKEBACK_WRITE=1 pytest tests/foreign/test_supported.py` writes the file anew.
"""

import json
import os
from pathlib import Path

import pytest
import torch

import spikeback as sb
from spikeback.doctor.adapters.families import reads_out, spikes
from spikeback.doctor.adapters.neurons import neuron_of
from spikeback.doctor.adapters.settings import threshold_of

from ..doctor.peer_classes import neurons
from ..doctor.peers import need
from .test_peers import NETS, K, made

pytestmark = [pytest.mark.peers, pytest.mark.slow]

FILE = Path(__file__).parents[2] / "results/peers/supported.json"
PACKAGES = {"SpikingJelly": "spikingjelly", "snnTorch": "snntorch", "norse": "norse", "sinabs": "sinabs"}


def of_neurons(framework: str) -> dict[str, list[int]]:
    """How many of the neuron classes that a package offers are known, and how far."""
    modules = [make() for make in neurons()[framework].values()]
    spiking = [module for module in modules if spikes(module)]
    silent = [module for module in modules if not spikes(module) and reads_out(module)]
    share = lambda some: [len(some), len(spiking)]
    return {
        "neuron classes recognised": [len(spiking + silent), len(modules)],
        "that spike, with the membrane replayed exactly": share([m for m in spiking if neuron_of(m) is not None]),
        "that spike, with a threshold that remedies can set": share([m for m in spiking if threshold_of(m)]),
    }


def of_networks(framework: str) -> dict[str, list[int]]:
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
    return {f"networks tried: {label}": [count, len(names)] for label, count in counts.items()}


def test_the_committed_file_says_what_is_supported_how_far() -> None:
    for package in PACKAGES.values():
        need(package)
    found = {name: of_neurons(name) | of_networks(name) for name in PACKAGES}
    if os.environ.get("SPIKEBACK_WRITE"):
        FILE.parent.mkdir(parents=True, exist_ok=True)
        FILE.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    assert json.loads(FILE.read_text(encoding="utf-8")) == found
