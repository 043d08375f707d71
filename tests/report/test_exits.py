"""Branches kept at inference: means over seeds, and what the image shows."""

from typing import Any

import pytest

from spikeback.lab.exits.plots import accuracy_by_macs
from spikeback.lab.exits.table import exit_rows


def trial(method: str, seed: int, main: float) -> dict[str, Any]:
    accuracy, macs = [0.5 * main, main], [0.4, 1.1]
    curve = {"accuracy": accuracy, "macs": macs, "leaving": [[1.0, 0.0], [0.0, 1.0]]}
    return {
        "method": method,
        "seed": seed,
        "weight_start": 0.25,
        "weight": 0.01 * seed,
        "test": {"accuracy": accuracy, "sums": {"trained": main, "one": main / 4}, "curve": curve},
        "chosen": {"threshold": 0.9, "accuracy": main - 0.01, "macs": 0.7, "early": 0.5},
    }


TRIALS = [trial("evolutionary", 1, 0.8), trial("evolutionary", 0, 0.6), trial("vanilla", 0, 0.2)]


def test_trials_of_a_method_are_averaged() -> None:
    vanilla, evolutionary = exit_rows(TRIALS)  # in the order of every report
    assert (vanilla["method"], vanilla["seeds"]) == ("vanilla", 1)
    assert vanilla["accuracy"] == [{"mean": 0.1, "std": None}, {"mean": 0.2, "std": None}]
    assert evolutionary["seeds"] == 2
    assert evolutionary["weight"] == pytest.approx(0.005)
    assert evolutionary["accuracy"][1] == {"mean": pytest.approx(0.7), "std": pytest.approx(0.1 * 2**0.5)}
    assert evolutionary["curve"]["accuracy"] == pytest.approx([0.35, 0.7])
    assert evolutionary["curve"]["leaving"] == [[1.0, 0.0], [0.0, 1.0]]
    assert evolutionary["chosen"]["change"]["mean"] == pytest.approx(-0.01)


def test_image_has_every_exit_and_the_chosen_threshold() -> None:
    exits = [{"name": "layer1", "alone": 0.4, "early": 0.4}, {"name": "main", "alone": 1.0, "early": 1.1}]
    facts = {"trials": TRIALS, "methods": exit_rows(TRIALS), "exits": exits, "dataset": {"classes": ["a"] * 10}}
    alone, early = accuracy_by_macs(facts).axes
    drawn: Any = {line.get_label(): line for line in alone.get_lines()}
    assert set(drawn) == {"vanilla", "evolutionary", "chance"}
    assert drawn["evolutionary"].get_xdata() == pytest.approx([40, 100])
    assert drawn["evolutionary"].get_ydata() == pytest.approx([35, 70])
    rings: Any = [line for line in early.get_lines() if line.get_fillstyle() == "none"]
    assert [(*ring.get_xdata(), *ring.get_ydata()) for ring in rings] == [
        (pytest.approx(70), pytest.approx(19)),
        (pytest.approx(70), pytest.approx(69)),
    ]
