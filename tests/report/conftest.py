"""Made-up results of the documented schema: what the numbers are is known, so what the report says can be checked."""

import math
from collections.abc import Callable
from typing import Any

import pytest

BLOCKS, EPOCHS, STEPS = 16, 6, 42
# method -> (schedule, weight at progress p, final accuracy, factor by which the gradient shrinks at every block)
METHODS: dict[str, tuple[str, Callable[[float], float], float, float]] = {
    "vanilla": ("Vanilla()", lambda p: 0.0, 0.102, 0.61),
    "shortcut": ("Shortcut()", lambda p: 1.0, 0.124, 0.80),
    "evolutionary": ("Evolutionary(start=0.25)", lambda p: 0.25 * (1 - p), 0.731, 0.86),
}
KINDS = ("vanishing", "exploding", "dead", "saturated", "chaotic", "healthy")
EDGES = [-2 + i / 8 for i in range(49)]


def make_trial(method: str, seed: int, accuracy: float | None = None) -> dict[str, Any]:
    """A trial whose curves rise smoothly to `accuracy` (None: the method's own, a little different for every seed)."""
    schedule, weight, own, shrink = METHODS.get(method, METHODS["evolutionary"])
    final = own + own * 0.06 * seed if accuracy is None else accuracy
    progress = [(epoch + 1) / EPOCHS for epoch in range(EPOCHS)]
    test = [0.1 + (final - 0.1) * (1 - math.exp(-3 * p)) / (1 - math.exp(-3)) for p in progress]
    branches = 0.0 if method == "vanilla" else 0.55 if method == "shortcut" else 0.06
    total = [
        a + branches * (1 - math.exp(-4 * p)) * (1 if method == "shortcut" else 1 - p)
        for a, p in zip(test, progress, strict=True)
    ]
    steps = [0, *(STEPS * (epoch + 1) for epoch in range(EPOCHS))]
    norms = [
        [1e-3 * (seed + 1) * (shrink + 0.02 * seed + 0.004 * row) ** (BLOCKS - 1 - b) for b in range(BLOCKS)]
        for row in range(len(steps))
    ]
    return {
        "method": method,
        "schedule": schedule,
        "seed": seed,
        "last_accuracy": final,
        "best_accuracy": final,
        "best_epoch": EPOCHS,
        "best_on": "held-out",
        "last_sum_accuracy": total[-1],
        "gradient_ratio_start": norms[0][0] / norms[0][-1],
        "gradient_ratio": norms[3][0] / norms[3][-1],
        "firing_rate": 0.083 + 0.01 * seed,
        "seconds_per_step": 0.21 + 0.004 * seed + (method != "vanilla") * 0.013,
        "parameters_inference": 1_334_922,
        "parameters_training": 1_334_922 + (method != "vanilla") * 20_010,
        "epochs": EPOCHS,
        "steps": EPOCHS * STEPS,
        "history": {
            "epoch": list(range(1, EPOCHS + 1)),
            "train_loss": [0.35 + 1.95 * (1 - a) ** 1.4 for a in total],
            "train_accuracy": [a + 0.01 for a in total],
            "held_out_accuracy": [a - 0.005 for a in test],
            "test_accuracy": test,
            "test_sum_accuracy": total,
            "weight": [weight(p - 1 / (EPOCHS * STEPS)) for p in progress],
            "lr": [0.05 * (1 + math.cos(math.pi * p)) for p in progress],
        },
        "gradients": {"blocks": [f"layer{1 + b // 4}.{b % 4}" for b in range(BLOCKS)], "step": steps, "norm": norms},
    }


def make_results(accuracies: dict[str, list[float]] | None = None, seeds: int = 2) -> dict[str, Any]:
    """Results of three methods and two seeds, or of one trial for every accuracy named."""
    if accuracies is None:
        trials = [make_trial(method, seed) for seed in range(seeds) for method in METHODS]
    else:
        trials = [make_trial(m, seed, a) for m, values in accuracies.items() for seed, a in enumerate(values)]
    return {
        "schema": 1,
        "kind": "compare",
        "title": "Spiking ResNet-34 on small images, where gradients vanish",
        "command": "spikeback compare --config demo --out runs/demo",
        "started": "2025-01-31T12:00:00+00:00",
        "seconds": 552.4,
        "config": {
            "title": "Spiking ResNet-34 on small images, where gradients vanish",
            "model": {"name": "spiking_resnet34", "width": 16, "time_steps": 2, "surrogate": "Triangle(gamma=1.0)"},
            "methods": list(METHODS),
            "seeds": [0, 1],
            "data": {"name": "embedded", "batch_size": 128, "held_out": 0.1, "root": None},
        },
        "dataset": {
            "name": "Fashion-MNIST, embedded subset",
            "provenance": "First 600 + 100 images of every class; not comparable with results on the whole set",
            "shape": [1, 28, 28],
            "classes": ["T-shirt", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Boot"],
            "train": 5400,
            "held_out": 600,
            "test": 1000,
            "hash": "3a" * 32,
            "split_hash": "7f" * 32,
        },
        "regime": {"surrogate": "Triangle(gamma=1.0)", "threshold": 0.5, "ratio": 6.0e-4, "kind": "vanishing"},
        "environment": {
            "spikeback": "0.1.0",
            "torch": "2.14.1",
            "python": "3.11.9",
            "commit": None,
            "platform": "Linux",
            "processor": "x86_64",
            "threads": 2,
            "accelerator": None,
            "precision": "bf16-mixed",
        },
        "trials": trials,
    }


def make_facts(blocks: int = 8, shrink: float = 0.5, steps: int = 2, **changed: Any) -> dict[str, Any]:
    """A diagnosis of so many blocks, each passing on `shrink` times its gradient; `changed` in every block."""
    rows = [_row(i, blocks, shrink, steps) | changed for i in range(blocks)]
    return {
        "schema": 1, "net": "SpikingResNet", "batch_size": 32, "time_steps": steps, "loss": 2.3125, "lr": 0.1,
        "blocks": rows, "layers": [_layer(row["name"]) for row in rows],
        "weights": [
            {"name": f"{row['name']}.conv.weight", "block": row["name"], "norm": 2.5, "gradient": 1e-5,
             "relative": 4e-6, "update": 4e-7} for row in rows
        ],
        "verdict": {
            "kind": "vanishing", "cause": "surrogate height: too low, 6.0e-04 is left.", "effective_depth": 3,
            "remedies": [{"title": "calibrate", "why": "heights that fit", "code": "sb.calibrate(net, x)  # a < b"}],
            "text": "vanishing: surrogate height: too low. 3 of 8 blocks.\n1. calibrate: heights that fit\n"
            "     sb.calibrate(net, x)  # a < b",
        },
    }  # fmt: skip


def _row(i: int, blocks: int, shrink: float, steps: int) -> dict[str, Any]:
    gradient = 1e-3 * shrink ** (blocks - 1 - i)
    return {
        "name": f"layer{i}", "kind": KINDS[i % 6], "gradient": gradient, "gradient_by_step": [gradient] * steps,
        "gain": shrink, "predicted": 1.2 * shrink, "relu": 0.98, "relu_predicted": 1.0, "rate": 0.3,
        "rate_by_step": [0.3] * steps, "silent": 0.001, "saturated": 0.0, "active": 0.4, "derivative": 0.2,
        "second_moment": 0.1, "fidelity": 0.9**i, "unrelated": 0.05, "relu_fidelity": 0.99, "coherence": -0.001,
        "descent": -2e4 if i == 1 else 0.97, "participation": 12.3,
    }  # fmt: skip


def _layer(block: str) -> dict[str, Any]:
    return {
        "name": f"{block}.lif", "block": block, "threshold": 0.5, "rate": 0.3, "rate_by_step": [0.3], "silent": 0.001,
        "saturated": 0.0, "active": 0.4, "derivative": 0.2, "second_moment": 0.1, "current_mean": 0.0,
        "current_std": 1.0, "leak": 0.25, "fires_without_leak": 0.9,
        "membrane": {"edges": EDGES, "density": [1 / 48] * 48},
    }  # fmt: skip


def add_records(results: dict[str, Any], taps: int = 3, blocks: int = 16) -> dict[str, Any]:
    """The results with what the doctor recorded in every trial: first layer, shares, blocks over time."""
    edges = [-12 + 0.25 * i for i in range(57)]
    for trial in results["trials"]:
        probes, branches = len(trial["gradients"]["step"]), taps if trial["method"] != "vanilla" else 0
        counts = [[100 if 24 <= i < 28 + row else 0 for i in range(56)] for row in range(probes)]
        trial["gradients"]["first_layer"] = {
            "name": "encoder.0.weight", "edges": edges, "counts": counts, "zeros": [100 * row for row in range(probes)]
        }  # fmt: skip
        shares = [0.4, *[0.6 / branches] * branches] if branches else [1.0]
        sources = ["main", *(f"layer{i}" for i in range(branches))]
        trial["gradients"]["shares"] = {"sources": sources, "first_block": [shares] * probes}
        steps = list(range(0, trial["steps"] + 1, 6))
        wave = [[0.2 + 0.1 * math.sin(b / 2 + s / 30) for b in range(blocks)] for s in steps]
        gradient = [[0.6 ** (blocks - 1 - b) for b in range(blocks)] for _ in steps]
        trial["doctor"] = {
            "step": steps, "blocks": [f"layer{b}" for b in range(blocks)], "gradient": gradient, "rate": wave,
            "active": wave, "silent": wave,
        }  # fmt: skip
    return results


@pytest.fixture
def results() -> dict[str, Any]:
    """Three methods, two seeds, 16 blocks, 6 epochs."""
    return make_results()


@pytest.fixture(scope="session")
def build() -> Callable[..., dict[str, Any]]:
    """`build({"vanilla": [0.1, 0.2]})`: results with these last accuracies, one trial each."""
    return make_results


@pytest.fixture(scope="session")
def diagnosis() -> Callable[..., dict[str, Any]]:
    """`diagnosis(8)`: a diagnosis of eight blocks."""
    return make_facts


@pytest.fixture(scope="session")
def record() -> Callable[..., dict[str, Any]]:
    """`record(results)`: the results with what the doctor records."""
    return add_records
