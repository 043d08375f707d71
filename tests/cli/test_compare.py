"""What `spikeback compare` writes, held against docs/results.md field by field."""

import csv
import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file

import spikeback as sb
from spikeback.cli.main import main
from spikeback.data import DataConfig, DataModule

METHODS, SEEDS, EPOCHS, STEPS = ["vanilla", "evolutionary"], [0, 1], 2, 8
FILES = {"config.yaml", "results.json", "results.csv", "report.html"}
TRIAL_FILES = {"best.ckpt", "last.ckpt", "previous.ckpt", "net.safetensors", "events.jsonl"}


def text(value: Any) -> bool:
    return isinstance(value, str) and bool(value)


def fraction(value: Any) -> bool:
    return isinstance(value, float) and 0 <= value <= 1


def positive(value: Any) -> bool:
    return isinstance(value, float) and value > 0


def natural(value: Any) -> bool:
    return type(value) is int and value >= 0


def sha256(value: Any) -> bool:
    return isinstance(value, str) and re.fullmatch("[0-9a-f]{64}", value) is not None


def either(*choices: str | None) -> Any:
    return lambda value: value in choices


def each_epoch(check: Any) -> Any:
    return lambda values: len(values) == EPOCHS and all(check(value) for value in values)


def anything(value: Any) -> bool:
    return True


RESULTS = {
    "schema": lambda v: v == 1,
    "kind": either("compare"),
    "title": text,
    "command": text,
    "started": lambda v: re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00", v),
    "seconds": positive,
    "planned": lambda v: v == [{"method": m, "seed": s} for s in SEEDS for m in METHODS],
    "config": lambda v: set(v) == {"title", "data", "model", "branches", "train"},
    "dataset": anything,
    "regime": anything,
    "environment": anything,
    "trials": lambda v: [(t["method"], t["seed"]) for t in v] == [(m, s) for s in SEEDS for m in METHODS],
}
DATASET = {
    "name": either("Fashion-MNIST, embedded subset"),
    "provenance": text,
    "shape": lambda v: v == [1, 8, 8],
    "classes": lambda v: len(v) == 10 and all(map(text, v)),
    "train": lambda v: v == 128,
    "held_out": lambda v: v == 600,
    "test": lambda v: v == 1000,
    "hash": sha256,
    "split_hash": sha256,
    "split": either(None),
    "options": lambda v: (
        sorted(v) == ["crop_padding", "mean", "mirror", "std"] and all(len(v[key]) == 1 for key in ("mean", "std"))
    ),
}
REGIME = {
    "surrogate": text,
    "threshold": lambda v: v == 0.5,
    "ratio": positive,
    "kind": either("vanishing", "balanced", "exploding"),
}
ENVIRONMENT = {
    **dict.fromkeys(
        ["spikeback", "torch", "torchvision", "lightning", "numpy", "pillow", "python", "platform", "processor"], text
    ),
    "commit": lambda v: v is None or re.fullmatch("[0-9a-f]{40}(-dirty)?", v),
    "threads": natural,
    "accelerator": lambda v: v is None or text(v),
    "precision": either("32-true"),
}
TRIAL = {
    "method": either(*METHODS),
    "schedule": either("Vanilla()", "Evolutionary(start=0.25)"),
    "seed": natural,
    "last_accuracy": fraction,
    "best_accuracy": fraction,
    "best_epoch": lambda v: type(v) is int and 1 <= v <= EPOCHS,
    "best_on": either("held-out"),
    "last_sum_accuracy": fraction,
    "gradient_ratio_start": positive,
    "gradient_ratio": positive,
    "firing_rate": fraction,
    "seconds_per_step": positive,
    "parameters_inference": natural,
    "parameters_training": natural,
    "epochs": lambda v: v == EPOCHS,
    "steps": lambda v: v == STEPS,
    "history": anything,
    "gradients": anything,
    "calibration": either(None),
}
HISTORY = {
    "epoch": lambda v: v == [1, 2],
    "train_loss": each_epoch(positive),
    **{f"{part}_accuracy": each_epoch(fraction) for part in ("train", "held_out", "test", "test_sum")},
    "weight": each_epoch(lambda v: v >= 0),
    "lr": each_epoch(lambda v: v >= 0),
}


def check(value: dict[str, Any], schema: dict[str, Any]) -> None:
    """Exactly these fields, each of its kind."""
    assert value.keys() == schema.keys()
    assert [(key, value[key]) for key, valid in schema.items() if not valid(value[key])] == []


@pytest.fixture(scope="module")
def results(finished: Path) -> dict[str, Any]:
    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    return json.loads((finished / "results.json").read_text(), parse_constant=refuse)


@pytest.mark.slow
def test_results_are_those_documented(results: dict[str, Any]) -> None:
    check(results, RESULTS)
    check(results["dataset"], DATASET)
    check(results["regime"], REGIME)
    check(results["environment"], ENVIRONMENT)
    for trial in results["trials"]:
        check(trial, TRIAL)
        check(trial["history"], HISTORY)
        blocks = [f"layer{stage}.{block}" for stage in (1, 2, 3) for block in (0, 1, 2)]
        branches = {"shares"} if trial["method"] != "vanilla" else set()
        assert trial["gradients"].keys() == {"blocks", "step", "norm", "first_layer", *branches}
        assert trial["gradients"]["blocks"] == blocks
        assert trial["gradients"]["step"] == [0, 4, 8]
        assert [len(row) for row in trial["gradients"]["norm"]] == [9, 9, 9]


def test_numbers_follow_from_the_record(results: dict[str, Any]) -> None:
    ratio = results["regime"]["ratio"]
    assert results["regime"]["kind"] == ("vanishing" if ratio < 0.05 else "exploding" if ratio > 20 else "balanced")
    for trial in results["trials"]:
        history = trial["history"]
        ratios = [row[0] / row[-1] for row in trial["gradients"]["norm"]]
        assert trial["gradient_ratio_start"] == ratios[0]
        assert trial["gradient_ratio"] == pytest.approx((ratios[1] * ratios[2]) ** 0.5, rel=1e-12)
        assert trial["last_accuracy"] == history["test_accuracy"][-1]
        assert trial["best_accuracy"] == history["test_accuracy"][trial["best_epoch"] - 1]
        assert trial["last_sum_accuracy"] == history["test_sum_accuracy"][-1]
        start = 0.25 if trial["method"] == "evolutionary" else 0.0
        assert history["weight"] == [start * (1 - 3 / 8), start * (1 - 7 / 8)]
    vanilla = results["trials"][0]
    assert vanilla["gradient_ratio_start"] == ratio  # the regime is that of the untrained vanilla network, first seed
    assert vanilla["history"]["test_sum_accuracy"] == vanilla["history"]["test_accuracy"]  # lambda is 0


def test_folder_holds_what_is_promised(finished: Path) -> None:
    names = {path.name for path in finished.iterdir() if path.is_file()}
    plots = {name for name in names if name.endswith(".png")}
    drawn = {f"{name}.svg" for name in ("branch-shares", "first-layer-histogram")}  # and as images
    assert names - plots == FILES | drawn
    assert len(plots) == 6
    for name in plots:
        with Image.open(finished / name) as plot:
            plot.verify()
            assert plot.width > 500
    trials = {path for path in finished.iterdir() if path.is_dir()}
    assert {path.name for path in trials} == {f"{m}-seed{s}" for m in METHODS for s in SEEDS}
    for trial in trials:
        assert {path.name for path in trial.iterdir()} == TRIAL_FILES


def test_csv_has_one_row_a_trial(finished: Path, results: dict[str, Any]) -> None:
    with (finished / "results.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 4
    for row, trial in zip(rows, results["trials"], strict=True):
        assert row["method"] == trial["method"]
        assert int(row["seed"]) == trial["seed"]
        for field in ("last_accuracy", "best_accuracy", "last_sum_accuracy", "firing_rate", "gradient_ratio"):
            assert float(row[field]) == trial[field]
        assert int(row["parameters_inference"]) == trial["parameters_inference"]


def test_report_fetches_nothing(finished: Path) -> None:
    page = (finished / "report.html").read_text()
    assert "<svg" in page
    assert not re.search(r"<(script|link|iframe|img)\b", page)
    assert not re.search(r"""(src|href|action)\s*=\s*["']?\s*(?!["']?#)""", page)
    assert not re.search(r"url\((?!#)|@import", page)


def test_events_are_one_json_object_a_line(finished: Path) -> None:
    for log in finished.glob("*/events.jsonl"):
        events = [json.loads(line) for line in log.read_text().splitlines()]
        assert [event["event"] for event in events] == ["started", "epoch", "epoch", "finished"]
        assert {f"{event['method']}-seed{event['seed']}" for event in events} == {log.parent.name}


@pytest.mark.slow
def test_exported_network_loads_into_the_plain_model(finished: Path, results: dict[str, Any]) -> None:
    data = DataModule(DataConfig(size=8, limit=128, batch_size=32), seed=0)
    data.setup()
    for trial in results["trials"]:
        file = finished / f"{trial['method']}-seed{trial['seed']}" / "net.safetensors"
        net = sb.create_model("spiking_resnet20_he", 10, time_steps=1, in_channels=1, width=4)
        net.load_state_dict(load_file(file), strict=True)
        net.eval()
        with torch.no_grad():
            hits = sum(int((net(x).mean(0).argmax(1) == y).sum()) for x, y in data.test_dataloader())
        assert hits / 1000 == trial["best_accuracy"]
        with safe_open(file, "pt") as content:
            assert json.loads(content.metadata()["card"])["method"] == trial["method"]


@pytest.mark.slow
def test_table_names_every_method(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["report", str(finished)])
    table = capsys.readouterr().out
    for word in (*METHODS, "seeds", "best", "last", "first/last", "firing", "s/step", "17,462"):
        assert word in table
    assert "Regime of the untrained network: " in table


@pytest.mark.slow
def test_plan_counts_what_a_run_lacks_and_trains_nothing(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = {path: path.stat().st_mtime_ns for path in finished.rglob("*")}
    config = ["compare", "--config", str(finished / "config.yaml"), "--out", str(finished), "--plan"]
    main([*config, "--methods", *METHODS, "--seeds", "0", "1", "2"])
    (row,) = [line.split() for line in capsys.readouterr().out.splitlines() if line.startswith("spikeback ")]
    assert row[-3] == "2"  # both methods with the third seed
    with pytest.raises(SystemExit):
        main([*config, "--train.lr", "0.7"])
    assert "another recipe, it differs in --train.lr" in " ".join(capsys.readouterr().err.split())
    assert {path: path.stat().st_mtime_ns for path in finished.rglob("*")} == before
