import math
from itertools import pairwise

import numpy as np
import pytest
from matplotlib.image import imread

from spikeback.report.doctor import diagnosis_figure, save_diagnosis

TITLES = ("Gradient", "Gain", "Activity", "Membranes", "Fidelity", "Directions", "Coherence", "Descent", "Time steps")


def _titles(figure):
    return [ax.get_title("left").split(":")[0].split(" at ")[0].split(" (")[0] for ax in figure.axes]


def _line(ax, label):
    return np.asarray(next(line for line in ax.get_lines() if line.get_label() == label).get_ydata(), float)


def test_every_number_is_drawn_in_a_panel_of_its_own(diagnosis):
    facts = diagnosis(8)
    figure = diagnosis_figure(facts)
    assert all(found.startswith(title) for found, title in zip(_titles(figure), TITLES, strict=True))
    gradient, gain, activity, _, fidelity, *_ = figure.axes
    np.testing.assert_allclose(_line(gradient, "vanishing")[[0, 6]], [0.5**7, 0.5], rtol=1e-12)
    np.testing.assert_array_equal(_line(gain, "measured"), [row["gain"] for row in facts["blocks"]])
    np.testing.assert_array_equal(_line(gain, "theory"), [row["predicted"] for row in facts["blocks"]])
    np.testing.assert_array_equal(_line(activity, "active"), [0.4] * 8)
    np.testing.assert_array_equal(_line(fidelity, "under noise"), [row["fidelity"] for row in facts["blocks"]])
    assert gradient.get_yscale() == gain.get_yscale() == "log"


def test_what_was_not_measured_has_no_panel(diagnosis):
    absent = ("predicted", "relu", "relu_predicted", "fidelity", "coherence", "descent", "participation", "active")
    facts = diagnosis(3, steps=1, **dict.fromkeys(absent), rate=None, silent=None)
    assert len(diagnosis_figure(facts | {"layers": []}).axes) == 2
    for layer in facts["layers"]:
        layer["membrane"] = None
    assert len(diagnosis_figure(facts).axes) == 2


@pytest.mark.slow
@pytest.mark.parametrize(("blocks", "width"), [(1, 4.3), (3, 9.6), (60, 4.3)])
def test_numbers_that_no_axis_can_show_are_written_or_left_out_without_a_warning(diagnosis, tmp_path, blocks, width):
    facts = diagnosis(blocks)
    strange = [0.0, math.inf, math.nan, None, 1e-300, 1e300]
    keys = ("gradient", "gain", "predicted", "relu", "fidelity", "coherence", "descent", "participation", "silent")
    for i, row in enumerate(facts["blocks"][:-1]):
        row |= {key: strange[(i + j) % 6] for j, key in enumerate(keys)}
        row["gradient_by_step"] = [0.0, 0.0]
    figure = diagnosis_figure(facts, width)
    figure.savefig(tmp_path / "figure.svg")
    if blocks > 3:
        assert {"0", "∞"} <= {text.get_text() for text in figure.axes[1].texts}


def test_a_dead_network_is_drawn(diagnosis, tmp_path):
    nothing = dict.fromkeys(("fidelity", "unrelated", "coherence", "descent", "participation", "predicted", "relu"))
    facts = diagnosis(8, gradient=0.0, gradient_by_step=[0.0, 0.0], gain=None, active=0.0, silent=1.0, **nothing)
    diagnosis_figure(facts).savefig(tmp_path / "figure.png")


@pytest.mark.slow
def test_png_and_svg_are_written_and_always_the_same(diagnosis, tmp_path):
    first = save_diagnosis(diagnosis(4), tmp_path / "a")
    again = save_diagnosis(diagnosis(4), tmp_path / "b")
    assert [path.name for path in first] == ["diagnosis.png", "diagnosis.svg"]
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in again]
    assert imread(first[0]).shape[1] == 1440
    assert b"<text" in first[1].read_bytes()


@pytest.mark.parametrize("width", [4.3, 9.6])
def test_titles_and_legends_stay_on_their_panel(diagnosis, width):
    figure = diagnosis_figure(diagnosis(16), width)
    figure.draw_without_rendering()
    for ax in figure.axes:
        right = ax.get_position().x1 * figure.get_figwidth() * figure.dpi
        boxes = [ax.title, ax.get_legend()] if ax.get_legend() else [ax.title]
        assert all(box.get_window_extent().x1 <= max(right, figure.bbox.x1) for box in boxes)
    for ax in figure.axes:
        ticks = [label.get_window_extent() for label in ax.get_yticklabels() if label.get_text()]
        ticks.sort(key=lambda box: box.y0)
        assert all(low.y1 <= high.y0 + 1 for low, high in pairwise(ticks))
