import math

import numpy as np
import pytest
from matplotlib.image import imread

from spikeback.errors import UsageError
from spikeback.report import accuracy_curves, gradient_by_block, loss_curves, save_plots, weight_curve
from spikeback.report.plots.curves import looks


def _line(ax, label):
    return next(line for line in ax.get_lines() if line.get_label() == label)


def test_accuracy_curves_draw_the_mean_over_seeds_and_chance(build):
    results = build({"vanilla": [0.1, 0.3]})
    (ax,) = accuracy_curves(results).axes
    curves = [trial["history"]["test_accuracy"] for trial in results["trials"]]
    mean = 50 * (np.array(curves[0]) + np.array(curves[1]))
    np.testing.assert_allclose(np.asarray(_line(ax, "vanilla").get_ydata(), float), mean, rtol=1e-14)
    assert list(np.asarray(_line(ax, "chance").get_ydata())) == [10, 10]


def test_the_sum_gets_its_own_panel_where_it_differs_and_no_curve_is_cut_off(results):
    alone, total = accuracy_curves(results).axes
    highest = 100 * max(max(trial["history"]["test_sum_accuracy"]) for trial in results["trials"])
    assert alone.get_ylim() == total.get_ylim()
    assert alone.get_ylim()[0] == 0
    assert alone.get_ylim()[1] > highest


def test_gradients_are_drawn_relative_to_the_last_block_on_a_log_axis(build):
    results = build({"vanilla": [0.1, 0.1]})
    figure = gradient_by_block(results)
    assert [ax.get_title("left") for ax in figure.axes] == ["before training", "half-way", "at the end"]
    for ax, row in zip(figure.axes, (0, 3, -1), strict=True):
        norms = np.array([trial["gradients"]["norm"][row] for trial in results["trials"]])
        ratios = norms / norms[:, -1:]
        expected = np.sqrt(ratios[0] * ratios[1])
        np.testing.assert_allclose(np.asarray(_line(ax, "vanilla").get_ydata(), float), expected, rtol=1e-12)
        assert ax.get_yscale() == "log"
        assert ax.get_ylim()[0] <= ratios.min()


@pytest.mark.slow
def test_a_gradient_of_exactly_zero_is_marked_and_the_rest_still_drawn(build, tmp_path):
    results = build({"vanilla": [0.1]})
    for row in results["trials"][0]["gradients"]["norm"]:
        row[:3] = [0.0, None, math.nan]
    ax = gradient_by_block(results).axes[0]
    assert [(text.get_text(), text.get_position()[0]) for text in ax.texts] == [("0", 1)]
    drawn = np.asarray(_line(ax, "vanilla").get_ydata(), float)
    assert list(np.isnan(drawn)) == [True] * 3 + [False] * 13
    save_plots(results, tmp_path)


@pytest.mark.parametrize("norm", [None, 0.0, 1e-300, 2.0])
def test_one_method_one_seed_one_epoch_one_block_is_drawn_without_a_warning(build, tmp_path, norm):
    results = build({"vanilla": [0.1]})
    (trial,) = results["trials"]
    trial["history"] = {key: values[:1] for key, values in trial["history"].items()}
    trial["gradients"] = {"blocks": ["layer1"], "step": [0], "norm": [[norm]]}
    assert len(save_plots(results, tmp_path)) == 4


def test_what_was_not_measured_is_left_out_without_a_warning(results, tmp_path):
    for trial in results["trials"]:
        trial["gradients"] = None
        trial["history"] = {key: [None for _ in values] for key, values in trial["history"].items()}
    assert len(save_plots(results, tmp_path)) == 4


@pytest.mark.slow
def test_save_plots_writes_images_and_nothing_else(results, tmp_path):
    paths = save_plots(results, tmp_path / "plots")
    assert [path.name for path in paths] == ["accuracy.png", "gradient.png", "weight.png", "loss.png"]
    assert sorted(paths) == sorted((tmp_path / "plots").iterdir())
    assert all(imread(path).shape[1] >= 700 for path in paths)


def test_methods_differ_in_colour_marker_and_line_and_keep_them(build):
    shown = looks(build({"evolutionary": [0.1], "vanilla": [0.2]}))
    assert shown == {name: look for name, look in looks(build({"other": [0.1]})).items() if name != "other"}
    for of in ("colour", "marker", "line"):
        assert len({getattr(shown[name], of) for name in ("vanilla", "shortcut", "evolutionary")}) == 3
    many = looks(build({f"method {i}": [0.1] for i in range(21)}))
    assert len(set(many.values())) == 24


@pytest.mark.parametrize("draw", [accuracy_curves, loss_curves, weight_curve, gradient_by_block])
def test_figures_of_another_schema_are_one_clear_line(results, draw):
    with pytest.raises(UsageError, match="schema 2"):
        draw({**results, "schema": 2})
