"""Figures of a study: what its table says, and only what was varied and measured."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.image import imread

from spikeback.lab.sweep.plots import FEW, accuracy_by_cell, save_sweep_plots
from spikeback.lab.sweep.table import sweep_rows

FIRST_LAYER = {
    "name": "encoder.0.weight",
    "edges": [-6.0, -4.0, -2.0, 0.0],
    "counts": [[10, 20, 5]] * 7,
    "zeros": [1] * 7,
}
MODELS = {"20": "spiking_resnet20_he", "34": "spiking_resnet34", "50": "spiking_resnet50"}


@pytest.fixture
def study(build: Callable[..., Any]) -> Callable[..., tuple[dict[str, Any], dict[str, Any]]]:
    """study({"a": {"vanilla": [0.1, 0.2]}}, models={}, first_layer=()): sweep.json, and the results by cell; a cell
    without accuracies has no results.
    """

    def make(accuracies: dict[str, Any], models: Any = None, first_layer: Any = ()) -> Any:
        cells, found = [], {}
        for name, values in accuracies.items():
            results = build(values) if values else None
            if results:
                found[name] = results
                results["config"]["model"]["name"] = (models or {}).get(name, "spiking_resnet34")
                for trial in results["trials"] if name in first_layer else ():
                    trial["gradients"]["first_layer"] = FIRST_LAYER
            cells.append(({"name": name, "point": {"axis": name}}, results))
        dataset = next((results["dataset"] for results in found.values()), None)
        return {"rows": sweep_rows(cells), "dataset": dataset}, found

    return make


def names(paths: list[Path], folder: Path) -> list[str]:
    """The files' names; each is there, none besides, and an image has more than one colour."""
    assert {path.name for path in folder.glob("*")} == {path.name for path in paths}
    for path in paths:
        if path.suffix == ".png":
            assert len(np.unique(imread(path)[..., :3].reshape(-1, 3), axis=0)) > 10
        else:
            assert "</svg>" in path.read_text()
    assert len({path.name for path in paths}) == len(paths)
    return [path.name for path in paths if path.suffix == ".png"]


def test_accuracy_has_a_row_a_cell_and_a_marker_a_method(study: Any) -> None:
    sweep, _ = study({
        "gain-sgd": {"vanilla": [0.1, 0.3], "evolutionary": [0.6]},
        "gain-adam": {"vanilla": [0.2]},
        "none": {"evolutionary": [0.5, 0.9]},
    })  # fmt: skip
    ax: Any = accuracy_by_cell(sweep).axes[0]
    assert [label.get_text() for label in ax.get_yticklabels()] == ["gain, sgd", "gain, adam", "none"]
    drawn: dict[str, Any] = {line.get_label(): line for line in ax.get_lines()}
    assert set(drawn) == {"vanilla", "evolutionary", "chance"}
    assert drawn["vanilla"].get_xdata() == pytest.approx([20, 20])  # means over seeds, per cent
    assert drawn["evolutionary"].get_xdata() == pytest.approx([60, 70])
    assert [round(y) for y in drawn["vanilla"].get_ydata()] == [0, 1]
    assert [round(y) for y in drawn["evolutionary"].get_ydata()] == [0, 2]
    assert drawn["vanilla"].get_ydata()[0] < drawn["evolutionary"].get_ydata()[0]  # beside each other, not upon
    assert list(drawn["chance"].get_xdata()) == [10, 10]
    ranges = [np.array(lines.get_segments())[:, :, 0] for lines in ax.collections]
    assert ranges[0] == pytest.approx(np.array([[10, 30], [20, 20]]))
    assert ranges[1] == pytest.approx(np.array([[60, 60], [50, 90]]))
    top, bottom = ax.get_ylim()
    assert top > 2 > 0 > bottom  # the first cell above


def test_accuracy_without_a_dataset_has_no_chance(study: Any) -> None:
    sweep, _ = study({"a": {"vanilla": [0.1]}})
    (ax,) = accuracy_by_cell({**sweep, "dataset": None}).axes
    assert [line.get_label() for line in ax.get_lines()] == ["vanilla"]


def test_row_without_an_accuracy_is_left_out(study: Any) -> None:
    sweep, _ = study({"a": {"vanilla": [0.1]}, "b": {"vanilla": [0.2]}})
    sweep["rows"][0] |= {"last_mean": None, "last_min": None, "last_max": None}
    (ax,) = accuracy_by_cell(sweep).axes
    assert [label.get_text() for label in ax.get_yticklabels()] == ["b"]


def test_nothing_finished_draws_nothing(study: Any, tmp_path: Path) -> None:
    sweep, found = study({"a": None, "b": None})
    assert save_sweep_plots(sweep, found, tmp_path / "out") == []
    assert not (tmp_path / "out").exists()


def test_one_depth_has_the_accuracy_only(study: Any, tmp_path: Path) -> None:
    sweep, found = study({"a": {"vanilla": [0.1]}, "b": {"vanilla": [0.2]}, "c": None})
    assert names(save_sweep_plots(sweep, found, tmp_path), tmp_path) == ["accuracy.png"]


@pytest.mark.slow
def test_depths_are_compared(study: Any, tmp_path: Path) -> None:
    sweep, found = study({"20": {"vanilla": [0.1]}, "34": {"vanilla": [0.2]}}, MODELS)
    assert names(save_sweep_plots(sweep, found, tmp_path), tmp_path) == ["accuracy.png", "gradient-by-depth.png"]


@pytest.mark.slow
def test_first_layer_where_it_was_measured(study: Any, tmp_path: Path) -> None:
    sweep, found = study({"a": {"vanilla": [0.1, 0.2]}, "b": {"vanilla": [0.2]}}, first_layer=["b"])
    assert names(save_sweep_plots(sweep, found, tmp_path), tmp_path) == ["accuracy.png", "b-first-layer.png"]


@pytest.mark.slow
def test_many_cells_get_no_figures_of_their_own(study: Any, tmp_path: Path) -> None:
    cells = [str(i) for i in range(FEW + 1)]
    sweep, found = study({name: {"vanilla": [0.1]} for name in cells}, {"0": "spiking_resnet18"}, cells)
    assert names(save_sweep_plots(sweep, found, tmp_path), tmp_path) == ["accuracy.png"]
