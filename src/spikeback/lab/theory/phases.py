"""Theory beside measurement on untrained networks: gain by block, and the phase diagram of identity blocks."""

import statistics
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from spikeback.doctor.measure.case import examine
from spikeback.doctor.measure.gradients import propagate
from spikeback.doctor.theory.gain import observe, predict
from spikeback.doctor.theory.mean_field import critical_height, mean_field
from spikeback.foreign.undisturbed import undisturbed
from spikeback.models import create_model
from spikeback.nn import LIF
from spikeback.ops.surrogate import ATan, Rectangle, Surrogate, Tanh, Triangle

MODELS = ("spiking_resnet18", "spiking_resnet34")
SURROGATES: tuple[Surrogate, ...] = (Triangle(1.0), Rectangle(1.0), Tanh(3.0))  # Eq. 4, the authors' tanh
THRESHOLDS = (0.5, 1.0)
HEIGHTS = (0.5, 0.7, 1.0, 1.3, 1.6, 2.0, 2.6)  # of the triangle, in the phase diagram
PHASES = (0.25, 0.5, 1.0, 2.0)  # its thresholds
FINE = 41  # points of a theoretical line


def gains(x: Tensor, y: Tensor, time_steps: Sequence[int] = (2, 4), width: int = 16) -> Iterator[dict[str, Any]]:
    """Measured and predicted gain of every block of untrained networks, one dictionary a network.

    It has the form of a diagnosis: `blocks` with `name`, `gain`, `predicted`; and what the network is.
    """
    for model in MODELS:
        for surrogate in SURROGATES:
            for threshold in THRESHOLDS:
                for steps in time_steps:
                    blocks = _blocks(model, LIF(threshold=threshold, surrogate=surrogate), steps, width, x, y)
                    what = {"model": model, "surrogate": repr(surrogate), "threshold": threshold, "time_steps": steps}
                    yield {**what, "blocks": blocks}


def phases(x: Tensor, y: Tensor, time_steps: int = 1, width: int = 16) -> Iterator[dict[str, Any]]:
    """Gain of identity blocks against the height of the triangle, one dictionary a threshold.

    `height` and `gain`: the line of `mean_field`; `critical`: the height at which it is 1; `measured`: points with
    `height` and `gain`, the median over the identity blocks of an untrained Spiking ResNet-34, `low` and `high`.
    """
    for threshold in PHASES:
        unit = Triangle(1.0)
        low, high = HEIGHTS[0], HEIGHTS[-1]
        heights = [low * (high / low) ** (i / (FINE - 1)) for i in range(FINE)]
        measured = []
        for height in HEIGHTS:
            neuron = LIF(threshold=threshold, surrogate=Triangle(height))
            rows = _blocks("spiking_resnet34", neuron, time_steps, width, x, y)
            same = [row["gain"] for row in rows if not row["name"].endswith(".0")]  # the first of a stage projects
            at = {"threshold": threshold, "height": height}
            measured.append({**at, "gain": statistics.median(same), "low": min(same), "high": max(same)})
        yield {
            "threshold": threshold,
            "time_steps": time_steps,
            "height": heights,
            "gain": [mean_field(unit, threshold, time_steps=time_steps, height=h) for h in heights],
            "measured": measured,
            "critical": critical_height(unit, threshold, time_steps=time_steps),
        }


def identity_blocks() -> list[dict[str, Any]]:
    """Gain of an identity block by `mean_field` (T = 1), and the factor on the derivative at which it is 1."""
    return [
        {
            "surrogate": repr(surrogate),
            "threshold": threshold,
            "gain": mean_field(surrogate, threshold),
            "critical": critical_height(surrogate, threshold),
        }
        for surrogate in (*SURROGATES, ATan(2.0))
        for threshold in THRESHOLDS
    ]


def agreement(nets: Sequence[dict[str, Any]]) -> dict[str, float]:
    """How near theory comes: median, lowest and highest prediction over measurement, share within a factor of 2."""
    ratios = [
        row["predicted"] / row["gain"] for net in nets for row in net["blocks"] if row["gain"] and row["predicted"]
    ]
    within = sum(0.5 <= ratio <= 2 for ratio in ratios) / len(ratios)
    return {
        "blocks": len(ratios),
        "median": statistics.median(ratios),
        "lowest": min(ratios),
        "highest": max(ratios),
        "within_factor_2": within,
    }


def _blocks(model: str, neuron: LIF, time_steps: int, width: int, x: Tensor, y: Tensor) -> list[dict[str, Any]]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = create_model(
            model, int(y.max()) + 1, time_steps=time_steps, in_channels=x.shape[1], width=width, neuron=neuron
        )
    case = examine(net, x, y)
    with undisturbed(net):
        net.train()
        found = propagate(net, case.blocks, case.loss).gains
        predicted = predict(net, observe(net, x, layouts=case.layouts), case.blocks)
    return [{"name": name, "gain": found[name], "predicted": predicted[name]} for name in case.blocks]
