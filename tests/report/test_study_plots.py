import math

import numpy as np
import pytest

from spikeback.errors import UsageError
from spikeback.lab.sweep.plots import depth, gradient_ratio_by_depth
from spikeback.lab.theory.plots import critical_height, gain_scatter, phase_diagram, within


def _line(ax, label):
    return next(line for line in ax.get_lines() if line.get_label() == label)


def test_the_scatter_counts_blocks_within_a_factor_of_two(diagnosis):
    facts = diagnosis(4, shrink=1.0)
    for row, predicted in zip(facts["blocks"], (0.5, 2.0, 2.01, None), strict=True):
        row["predicted"] = predicted
    assert within(facts) == (2, 3)
    (ax,) = gain_scatter([("net", facts), ("other", diagnosis(3))]).axes
    assert ax.get_title("left") == "5 of 6 blocks within a factor of 2 (hollow: ReLU twins)"
    assert list(np.asarray(_line(ax, "net").get_xdata())) == [0.5, 2.0, 2.01]
    assert list(np.asarray(_line(ax, "net").get_ydata())) == [1.0, 1.0, 1.0]
    assert ax.get_xscale() == ax.get_yscale() == "log"


def test_the_scatter_leaves_out_what_a_log_axis_cannot_show(diagnosis, tmp_path):
    facts = diagnosis(4)
    for row, gain in zip(facts["blocks"], (0.0, math.inf, None, math.nan), strict=True):
        row["gain"] = row["relu"] = gain
    figure = gain_scatter([("net", facts)])
    assert figure.axes[0].get_title("left") == "no block was predicted"
    figure.savefig(tmp_path / "figure.png")


def test_the_critical_height_is_where_the_gain_is_one():
    heights = [0.5, 1.0, 2.0]
    assert critical_height({"height": heights, "gain": [0.25, 0.5, 2.0]}) == pytest.approx(math.sqrt(2))
    assert critical_height({"height": heights, "gain": [0.0, 0.5, 0.9]}) is None
    assert critical_height({"height": heights, "gain": [0.25, 0.5, 2.0], "critical": 1.3}) == 1.3


@pytest.mark.parametrize("width", [4.3, 7.0])
def test_the_phase_diagram_has_a_line_and_points_a_threshold(width):
    heights = [0.5, 1.0, 1.5, 2.0]
    curves = [
        {"threshold": th, "height": heights, "gain": [a * h for h in heights]} for th, a in ((1.0, 1.1), (0.5, 0.6))
    ]
    points = [
        {"threshold": 0.5, "height": 1.3, "gain": 0.8, "low": 0.7, "high": 0.9},
        {"threshold": 2.0, "height": 1, "gain": 3},
    ]
    figure = phase_diagram(curves, points, width)
    (ax,) = figure.axes
    assert [text.get_text() for text in figure.legends[0].get_texts()] == [
        "threshold 0.5",
        "threshold 1",
        "threshold 2",
    ]
    assert [text.get_text() for text in ax.texts] == ["1.67", "0.91"]
    assert len(ax.containers) == 2
    figure.draw_without_rendering()


def test_depth_has_a_panel_each_from_shallow_to_deep(build):
    studies = []
    for layers in (34, 20):
        results = build({"vanilla": [0.1, 0.1]})
        results["config"]["model"]["name"] = f"spiking_resnet{layers}_he"
        studies.append(results)
    figure = gradient_ratio_by_depth(studies)
    assert [ax.get_title("left") for ax in figure.axes] == ["20 layers", "34 layers"]
    norms = np.array([trial["gradients"]["norm"] for trial in studies[1]["trials"]])
    expected = np.sqrt(np.prod(norms[:, :, 0] / norms[:, :, -1], 0))
    line = _line(figure.axes[0], "vanilla")
    np.testing.assert_allclose(np.asarray(line.get_ydata(), float), expected, rtol=1e-12)
    np.testing.assert_array_equal(line.get_xdata(), range(7))
    assert depth({"config": {}}) == 0


def test_depth_shows_a_dead_gradient_as_zero_and_leaves_out_what_is_missing(build, tmp_path):
    results = build({"vanilla": [0.1], "shortcut": [0.1]})
    vanilla, shortcut = results["trials"]
    vanilla["gradients"]["norm"][0][0] = 0.0
    vanilla["gradients"]["norm"][1][0] = None
    shortcut["gradients"] = None
    figure = gradient_ratio_by_depth([results], 4.3)
    assert [text.get_text() for text in figure.axes[0].texts] == ["0"]
    figure.savefig(tmp_path / "figure.png")
    with pytest.raises(UsageError, match="no finished trial"):
        gradient_ratio_by_depth([{**results, "trials": []}])
