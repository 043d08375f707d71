"""`spikeback exits`: agrees with what the training wrote down, and says what cannot be."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from spikeback.lab.exits.early import THRESHOLDS

pytestmark = pytest.mark.slow

Command = Callable[..., Any]


def of_trials(facts: dict[str, Any]) -> dict[tuple[str, int], dict[str, Any]]:
    return {(trial["method"], trial["seed"]): trial for trial in facts["trials"]}


def test_exits_of_a_run_are_what_its_training_recorded(command: Command, run: Path) -> None:
    outcome = command("exits", run, "--checkpoint", "last")
    assert outcome.code == 0, outcome.err
    facts = json.loads((run / "exits" / "exits.json").read_text())
    assert all((run / "exits" / f"exits.{kind}").stat().st_size > 5000 for kind in ("png", "svg"))
    results = json.loads((run / "results.json").read_text())
    assert facts["dataset"] == results["dataset"]
    assert facts["config"] == results["config"]
    assert [e["name"] for e in facts["exits"]] == ["layer1", "layer2", "main"]
    for (method, seed), trial in of_trials(facts).items():
        (recorded,) = [t for t in results["trials"] if (t["method"], t["seed"]) == (method, seed)]
        accuracy, curve = trial["test"]["accuracy"], trial["test"]["curve"]
        assert accuracy[-1] == pytest.approx(recorded["last_accuracy"], abs=1e-6)  # rounded there
        assert trial["test"]["sums"]["trained"] == pytest.approx(recorded["last_sum_accuracy"], abs=1e-6)
        assert trial["held_out"]["accuracy"][-1] == pytest.approx(
            recorded["history"]["held_out_accuracy"][-1], abs=1e-6
        )
        assert (trial["epoch"], trial["weight"]) == (2, recorded["history"]["weight"][-1])
        assert curve["accuracy"][0] == accuracy[0]
        assert curve["accuracy"][-1] == accuracy[-1]
        assert curve["macs"][-1] == pytest.approx(facts["exits"][-1]["early"])
        assert_chosen(trial, tolerance=0.01)
    assert [row["method"] for row in facts["methods"]] == ["vanilla", "evolutionary"]
    assert_printed(outcome.out, facts)


def assert_chosen(trial: dict[str, Any], tolerance: float) -> None:
    """The cheapest that is accurate enough on held-out images, shown on the test images."""
    chosen, held_out, test = trial["chosen"], trial["held_out"], trial["test"]
    i = THRESHOLDS.index(chosen["threshold"])
    least = held_out["accuracy"][-1] - tolerance
    points = zip(held_out["curve"]["macs"], held_out["curve"]["accuracy"], strict=True)
    assert held_out["curve"]["accuracy"][i] == chosen["held_out_accuracy"] >= least
    assert held_out["curve"]["macs"][i] == min(macs for macs, accuracy in points if accuracy >= least)
    assert [chosen["accuracy"], chosen["macs"]] == [test["curve"][key][i] for key in ("accuracy", "macs")]
    assert chosen["early"] == 1 - test["curve"]["leaving"][i][-1]


def assert_printed(text: str, facts: dict[str, Any]) -> None:
    """Means over the two seeds, and what of the branches must be known."""
    trials = of_trials(facts)
    for row in facts["methods"]:
        found = [trials[row["method"], seed]["test"]["accuracy"][0] for seed in (0, 1)]
        assert row["accuracy"][0]["mean"] == pytest.approx(sum(found) / 2)
        assert row["accuracy"][0]["std"] == pytest.approx(abs(found[0] - found[1]) / 2**0.5)
        assert f"{100 * sum(found) / 2:.1f}±" in text
    words = " ".join(text.split())
    assert "vanilla: λ was 0, so its branches were never trained" in words
    assert "evolutionary: λ fell from 0.25 to " in words
    assert "1,000 test samples, 4 trials" in words


def test_trials_by_name_and_by_file(command: Command, finished: Path, tmp_path: Path) -> None:
    one, other = (finished / f"evolutionary-seed{seed}" for seed in (0, 1))
    outcome = command("exits", one, other / "best.ckpt", "--tolerance", 30.1, "--out", tmp_path)
    assert outcome.code == 0, outcome.err
    facts = json.loads((tmp_path / "exits.json").read_text())
    assert list(of_trials(facts)) == [("evolutionary", 0), ("evolutionary", 1)]
    for trial in facts["trials"]:
        assert_chosen(trial, tolerance=30.1 / 100)
    assert not list(finished.rglob("exits*"))


def test_mistakes_are_one_line(
    refused: Callable[..., str], command: Command, tiny: list[str], finished: Path, run: Path, tmp_path: Path
) -> None:
    trial = finished / "evolutionary-seed0"
    assert "no run" in refused("exits", tmp_path / "gone")
    assert "--tolerance must lie in [0, 100), in points of accuracy, not -1" in refused(
        "exits", trial, "--tolerance=-1"
    )
    twice = refused("exits", trial, run / "evolutionary-seed0")
    assert "are both evolutionary with seed 0; name one" in twice
    for checkpoint in run.rglob("best.ckpt"):
        checkpoint.unlink()
    assert "has 0 trials with best.ckpt" in refused("exits", run)
    other = tmp_path / "other"
    assert command("fit", *tiny, "--train.epochs", 1, "--train.lr", 0.2, "--out", other).code == 0
    line = refused("exits", trial, other)
    assert re.search(r"another recipe than .*differs in --train\.epochs, --train\.lr; name trials of one", line)


def test_threshold_chosen_on_the_test_images_is_said(command: Command, tiny: list[str], tmp_path: Path) -> None:
    out = tmp_path / "run"
    words = [*tiny, "--train.epochs", 1, "--train.best_on", "test", "--branches.taps", "block"]
    assert command("fit", *words, "--method", "shortcut", "--out", out).code == 0
    outcome = command("exits", out)
    assert outcome.code == 0, outcome.err
    assert "Nothing was held out" in outcome.out
    facts = json.loads((out / "exits" / "exits.json").read_text())
    assert facts["chosen_on"] == "test"
    assert len(facts["exits"]) == 9
    (row,) = facts["methods"]
    assert row["sums"]["trained"] == row["sums"]["one"]
    assert row["accuracy"][0]["std"] is None
