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
        "title": "Spiking ResNet-34 on small pictures, where gradients vanish",
        "command": "spikeback compare --config demo --out runs/demo",
        "started": "2025-01-31T12:00:00+00:00",
        "seconds": 552.4,
        "config": {
            "title": "Spiking ResNet-34 on small pictures, where gradients vanish",
            "model": {"name": "spiking_resnet34", "width": 16, "time_steps": 2, "surrogate": "Triangle(gamma=1.0)"},
            "methods": list(METHODS),
            "seeds": [0, 1],
            "data": {"name": "embedded", "batch_size": 128, "held_out": 0.1, "root": None},
        },
        "dataset": {
            "name": "Fashion-MNIST, embedded subset",
            "provenance": "First 600 + 100 pictures of every class; not comparable with results on the whole set",
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


@pytest.fixture
def results() -> dict[str, Any]:
    """Three methods, two seeds, 16 blocks, 6 epochs."""
    return make_results()


@pytest.fixture(scope="session")
def build() -> Callable[..., dict[str, Any]]:
    """`build({"vanilla": [0.1, 0.2]})`: results with these last accuracies, one trial each."""
    return make_results
