"""fit, test, predict, report: each agrees with what the training wrote down."""

import csv
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from spikeback.export.weights import load_trained

Command = Callable[..., Any]


@pytest.mark.slow
def test_fit_trains_one_network_like_compare(command: Command, tiny: list[str], finished: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    assert command("fit", *tiny, "--method", "evolutionary", "--seed", 1, "--out", out).code == 0
    results = json.loads((out / "results.json").read_text())
    assert results["kind"] == "fit"
    (trial,) = results["trials"]
    compared = json.loads((finished / "results.json").read_text())["trials"][3]
    del trial["seconds_per_step"], compared["seconds_per_step"]
    assert trial == compared


@pytest.mark.parametrize("checkpoint", ["best", "last"])
@pytest.mark.slow
def test_accuracy_is_the_one_recorded(checkpoint: str, command: Command, finished: Path) -> None:
    for trial in json.loads((finished / "results.json").read_text())["trials"]:
        folder = finished / f"{trial['method']}-seed{trial['seed']}"
        outcome = command("test", folder, "--checkpoint", checkpoint)
        assert outcome.code == 0, outcome.err
        (overall,) = re.findall(r"\ball\b[^\d]*([\d.]+)", outcome.out)
        assert overall == f"{100 * trial[f'{checkpoint}_accuracy']:.1f}"
        assert "Ankle boot" in outcome.out
        assert "1,000 test images" in outcome.out


def test_predict_writes_one_row_a_image(
    command: Command, finished: Path, draw_tree: Callable[..., Path], tmp_path: Path
) -> None:
    root, table = draw_tree("some", "more/below"), tmp_path / "p.csv"
    outcome = command("predict", finished / "evolutionary-seed0", "--images", root, "--out", table)
    assert outcome.code == 0, outcome.err
    with table.open(newline="") as file:
        header, *rows = csv.reader(file)
    classes = json.loads((finished / "results.json").read_text())["dataset"]["classes"]
    assert header == ["file", "class", *classes]
    assert [row[0] for row in rows] == sorted(str(path) for path in root.rglob("*.png"))
    assert len(rows) == 20
    for _, name, *probabilities in rows:
        values = [float(p) for p in probabilities]
        assert sum(values) == pytest.approx(1, abs=10 * 0.5e-6)  # ten numbers of six decimals
        assert name == classes[values.index(max(values))]


@pytest.mark.slow
def test_predictions_are_those_of_the_plain_network(
    command: Command, tiny: list[str], draw_tree: Callable[..., Path], tmp_path: Path
) -> None:
    root, out, table = draw_tree("cats", "dogs"), tmp_path / "run", tmp_path / "p.csv"
    data = ["--data.name", "folder", "--data.root", root, "--data.batch_size", 8]
    said = "shifted by up to 1 of 8 pixels, not mirrored ("
    assert f"training samples: {said}--data.flip true" in command("fit", *tiny, *data, "--out", out).out
    first = (out / "evolutionary-seed0" / "events.jsonl").read_text().splitlines()[0]
    assert json.loads(first)["augmentation"].startswith(f"{said}data.flip=True")
    assert command("predict", out, "--checkpoint", "last", "--images", root, "--out", table).code == 0
    with table.open(newline="") as file:
        right = [Path(row["file"]).parent.name == row["class"] for row in csv.DictReader(file)]
    outcome = command("test", out, "--checkpoint", "last")
    (overall,) = re.findall(r"\ball\b[^\d]*([\d.]+)", outcome.out)
    recorded = json.loads((out / "results.json").read_text())["trials"][0]["last_accuracy"]
    assert overall == f"{100 * recorded:.1f}"
    assert len(right) == 20  # the 4 test images are among them
    assert sum(right) >= round(4 * recorded)


@pytest.mark.slow
def test_report_is_rebuilt_from_results(command: Command, run: Path) -> None:
    page = (run / "report.html").read_bytes()
    made = [*run.glob("*.png"), run / "report.html", run / "results.csv"]
    table = (run / "results.csv").read_bytes()
    for path in made:
        path.unlink()
    for folder in run.glob("*-seed*"):
        shutil.rmtree(folder)
    assert command("report", run).code == 0
    assert all(path.is_file() for path in made)
    assert (run / "results.csv").read_bytes() == table
    assert (run / "report.html").read_bytes() == page


@pytest.mark.slow
def test_moved_data_is_found_by_root(
    command: Command, tiny: list[str], draw_tree: Callable[..., Path], tmp_path: Path
) -> None:
    root, out = draw_tree("cats", "dogs"), tmp_path / "run"
    data = ["--data.name", "folder", "--data.root", root, "--data.batch_size", 8]
    assert command("fit", *tiny, *data, "--out", out).code == 0
    before = command("test", out)
    moved = root.rename(tmp_path / "moved")
    assert command("test", out).code == 2
    after = command("test", out, "--data.root", moved)
    assert after.code == before.code == 0
    assert re.findall(r"\d+\.\d", after.out) == re.findall(r"\d+\.\d", before.out)


@pytest.mark.usefixtures("undrawn")
@pytest.mark.slow
def test_data_are_normalised_as_in_training_whatever_the_folder_holds_now(
    command: Command, tiny: list[str], draw_tree: Callable[..., Path], tmp_path: Path
) -> None:
    root, out = draw_tree("cats", "dogs"), tmp_path / "run"
    data = ["--data.name", "folder", "--data.root", root, "--data.batch_size", 8]
    assert command("fit", *tiny, *data, "--out", out).code == 0
    for path in root.glob("*/*.png"):
        Image.new("L", (8, 8), 250).save(path)
    trained = load_trained(str(out), "last")
    now = trained.data(None)
    assert trained.mean.item() == pytest.approx(0.5, abs=0.1)  # of the noise that was there
    assert (now.mean, now.std) == (trained.mean, trained.std)
