import numpy as np
import pytest
from matplotlib.image import imread
from matplotlib.patches import StepPatch

from spikeback.errors import UsageError
from spikeback.report import save_plots, write_csv, write_report
from spikeback.report.doctor import branch_shares, doctor_over_time, first_layer_histogram

DRAWINGS = [first_layer_histogram, branch_shares, doctor_over_time]


def _maps(figure):
    return {
        ax.get_title("left"): np.ma.asarray(ax.collections[0].get_array()) for ax in figure.axes if ax.get_title("left")
    }


def test_a_histogram_shows_the_share_of_weights_at_each_moment(build, record):
    figure = first_layer_histogram(record(build()))
    assert [ax.get_title("left") for ax in figure.axes] == [
        "before training", "after epoch 1", "after epoch 3", "after epoch 6"
    ]  # fmt: skip
    before, after, *_ = figure.axes
    stairs = next(p for p in before.patches if isinstance(p, StepPatch) and p.get_label() == "vanilla").get_data()
    np.testing.assert_allclose(stairs[0], [25] * 4)
    np.testing.assert_array_equal(stairs[1], np.arange(-6, -4.9, 0.25))
    assert not before.texts
    assert [text.get_text() for text in after.texts] == ["16.7 % are 0"] * 3


def test_branch_shares_are_stacked_and_negative_ones_hang_below(build, record):
    results = record(build(seeds=2))
    for trial in results["trials"]:
        shares = trial["gradients"]["shares"]
        if len(shares["sources"]) > 1:
            shares["first_block"] = [[0.5, 0.7, 0.0, -0.2]] * len(shares["first_block"])
    figure = branch_shares(results)
    assert [ax.get_title("left") for ax in figure.axes] == ["shortcut", "evolutionary"]
    heights = np.concatenate([np.asarray(area.get_paths()[0].vertices)[:, 1] for area in figure.axes[0].collections])
    assert (heights.min(), heights.max()) == pytest.approx((-20, 120))
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["main", "layer0", "layer1", "layer2"]


def test_many_branches_have_a_short_legend(build, record):
    (legend,) = branch_shares(record(build(), taps=30)).legends
    names = [text.get_text() for text in legend.get_texts()]
    assert len(names) == 8
    assert (names[0], names[-1]) == ("main", "layer29")


def test_maps_are_of_block_over_epoch_averaged_over_seeds(build, record):
    results = record(build({"vanilla": [0.1, 0.1]}), blocks=5)
    one, two = (trial["doctor"] for trial in results["trials"])
    one["gradient"][0], two["gradient"][0] = [1e-2, 1, 1, 1, 1], [1e-4, 1, 1, 1, 1]
    one["rate"][0], two["rate"][0] = [0.25] * 5, [0.75] * 5
    maps = _maps(doctor_over_time(results))
    assert list(maps) == ["vanilla: gradient, last = 1", "vanilla: firing rate", "vanilla: active"]
    gradient, rate, _ = maps.values()
    assert gradient.shape == (5, 43)
    np.testing.assert_allclose(gradient[:, 0], [-3, 0, 0, 0, 0], atol=1e-12)
    np.testing.assert_allclose(rate[:, 0], [0.5] * 5)


@pytest.mark.slow
@pytest.mark.parametrize(("blocks", "width"), [(1, 9.6), (60, 4.3)])
def test_what_is_undefined_is_left_out_without_a_warning(build, record, tmp_path, blocks, width):
    results = record(build(), blocks=blocks)
    for trial in results["trials"]:
        doctor = trial["doctor"]
        doctor["gradient"][0] = [0.0] * blocks
        doctor["gradient"][1] = [None] * blocks
        doctor["active"] = [[None] * blocks for _ in doctor["step"]]
        trial["gradients"]["first_layer"]["counts"][0] = [0] * 56
        trial["gradients"]["first_layer"]["zeros"][0] = 27
        trial["gradients"]["shares"]["first_block"][0] = [None] * len(trial["gradients"]["shares"]["sources"])
    for draw in DRAWINGS:
        draw(results, width).savefig(tmp_path / "figure.svg")
    assert not any(title.endswith("active") for title in _maps(doctor_over_time(results, width)))


def test_a_trial_looked_at_once_is_drawn(build, record, tmp_path):
    results = record(build({"evolutionary": [0.1]}))
    (trial,) = results["trials"]
    for of in (trial["gradients"], trial["doctor"], trial["gradients"]["first_layer"], trial["gradients"]["shares"]):
        for key in ("step", "norm", "counts", "zeros", "first_block", "gradient", "rate", "active", "silent"):
            if key in of:
                of[key] = of[key][:1]
    for draw in DRAWINGS:
        draw(results).savefig(tmp_path / "figure.png")


@pytest.mark.parametrize("draw", DRAWINGS)
def test_results_without_records_are_one_clear_line(results, draw):
    with pytest.raises(UsageError, match="not recorded in any trial"):
        draw(results)
    with pytest.raises(UsageError, match="schema 2"):
        draw({**results, "schema": 2})


@pytest.mark.slow
def test_report_and_plots_have_the_figures_there_are_numbers_for(build, record, tmp_path):
    results = record(build())
    paths = save_plots(results, tmp_path)
    new = ("first-layer-histogram", "branch-shares", "doctor-over-time")
    assert [path.name for path in paths[4:]] == [f"{name}.{kind}" for name in new for kind in ("png", "svg")]
    assert all(imread(path).shape[1] == 1200 for path in paths if path.suffix == ".png" and path.stem in new)
    titles = ("Gradient of the first layer", "What the branches supply", "Block by block, over time")
    page = write_report(results, tmp_path / "report.html").read_text(encoding="utf-8")
    assert all(title in page for title in titles)
    assert "data:image/png;base64," in page
    del results["trials"][0]["doctor"]
    for trial in results["trials"]:
        trial["doctor"] = trial["gradients"]["shares"] = None
    page = write_report(results, tmp_path / "report.html").read_text(encoding="utf-8")
    assert [title in page for title in titles] == [True, False, False]


def test_records_are_no_columns_of_the_csv(build, record, tmp_path):
    plain = write_csv(build(), tmp_path / "plain.csv").read_text()
    assert write_csv(record(build()), tmp_path / "recorded.csv").read_text() == plain
