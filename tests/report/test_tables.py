import csv
import io
import math

import pytest
from rich.console import Console

from spikeback import files
from spikeback.errors import UsageError
from spikeback.report import console_table, markdown, summarise, write_csv
from spikeback.report.tables import percent, plus_minus, scientific


def _drawn(results, width=100):
    text = io.StringIO()
    Console(width=width, file=text).print(console_table(results))
    return text.getvalue()


def test_summary_equals_hand_computed_numbers(build):
    results = build({"vanilla": [0.10, 0.14], "evolutionary": [0.5]})
    first, second, _ = results["trials"]
    first |= {"best_accuracy": 0.25, "gradient_ratio_start": 1e-4, "gradient_ratio": 4e-4, "seconds_per_step": 1.0}
    second |= {"best_accuracy": 0.75, "gradient_ratio_start": 1e-2, "gradient_ratio": 1e-4, "seconds_per_step": 3.0}
    first["firing_rate"], second["firing_rate"] = 0.25, 0.75
    vanilla, evolutionary = summarise(results)
    assert vanilla == {
        "method": "vanilla",
        "seeds": 2,
        "last_mean": pytest.approx(0.12, abs=1e-15),
        "last_std": pytest.approx(0.02 * math.sqrt(2), abs=1e-15),  # sample std of m - 0.02 and m + 0.02
        "last_min": 0.10,
        "last_max": 0.14,
        "best_mean": 0.5,
        "best_std": math.sqrt(0.125),
        "best_min": 0.25,
        "best_max": 0.75,
        "gradient_ratio_start": pytest.approx(1e-3, rel=1e-14),
        "gradient_ratio": pytest.approx(2e-4, rel=1e-14),
        "firing_rate": 0.5,
        "seconds_per_step": 2.0,
        "parameters_inference": 1_334_922,
    }
    assert (evolutionary["seeds"], evolutionary["last_mean"], evolutionary["last_std"]) == (1, 0.5, None)


def test_methods_keep_the_order_of_first_appearance(results):
    results["trials"].reverse()
    assert [row["method"] for row in summarise(results)] == ["evolutionary", "shortcut", "vanilla"]


@pytest.mark.parametrize("lost", [math.nan, math.inf, None])
def test_what_is_not_finite_is_left_out_of_averages(build, lost):
    results = build({"vanilla": [0.10, 0.14, 0.5]})
    results["trials"][2] |= {"last_accuracy": lost, "gradient_ratio": lost, "firing_rate": lost}
    for trial in results["trials"][:2]:
        trial |= {"gradient_ratio": 0.25, "firing_rate": 0.5}
    (row,) = summarise(results)
    assert (row["seeds"], row["last_mean"], row["last_max"]) == (3, pytest.approx(0.12), 0.14)
    assert (row["gradient_ratio"], row["firing_rate"]) == (0.25, 0.5)


def test_a_dead_gradient_makes_the_geometric_mean_zero_and_a_missing_one_is_left_out(build):
    results = build({"vanilla": [0.1, 0.1], "evolutionary": [0.1, 0.1], "shortcut": [0.1]})
    for trial, ratio in zip(results["trials"], (0.0, 0.5, None, 0.5, None), strict=True):
        trial["gradient_ratio"] = ratio
    assert [row["gradient_ratio"] for row in summarise(results)] == [0.0, 0.5, None]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (6e-4, "6 × 10⁻⁴"),
        (1.94e3, "1.9 × 10³"),
        (0.0553, "0.055"),
        (34.2, "34"),
        (0, "0"),
        (1, "1"),
        (None, "–"),
        (math.nan, "–"),
    ],
)
def test_ratios_read_as_a_person_writes_them(value, text):
    assert scientific(value) == text


def test_percent_has_one_decimal():
    assert percent(0.12345) == "12.3"
    assert percent(None) == "–"
    assert plus_minus(0.5, 0.01) == "50.0 ± 1.0"
    assert plus_minus(0.5, None) == "50.0"


@pytest.mark.parametrize("width", [80, 100])
def test_console_table_fits_and_breaks_no_number(build, width):
    results = build({"vanilla": [0.10, 0.12], "Evolutionary(start=0.5)": [0.7]})
    results["trials"][0]["gradient_ratio"] = results["trials"][1]["gradient_ratio"] = 5.2e-4
    text = _drawn(results, width)
    assert max(map(len, text.splitlines())) <= width
    for cell in ("vanilla", "11.0±1.4", "70.0", "5.2 × 10⁻⁴", "1,334,922", "Evolutionary"):
        assert cell in text
    assert "…" not in text


def test_console_table_is_drawn_before_the_first_trial_ends_and_takes_names_literally(build):
    assert "vanilla" not in _drawn({"trials": []})
    assert "[red]x" in _drawn(build({"[red]x": [0.1]}))


def test_markdown_has_a_row_a_method_and_escapes_bars(build):
    lines = markdown(build({"vanilla": [0.10, 0.12], "a|b": [0.7]})).splitlines()
    assert len(lines) == 4
    assert lines[2].startswith("| vanilla | 2 | 11.0 ± 1.4 | 11.0 ± 1.4 |")
    assert lines[3].startswith("| a\\|b | 1 | 70.0 |")


def test_csv_gives_back_every_scalar_of_every_trial(results, tmp_path):
    results["trials"][0]["gradient_ratio"] = None
    with write_csv(results, tmp_path / "new" / "results.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len(results["trials"])
    for row, trial in zip(rows, results["trials"], strict=True):
        scalars = {key: value for key, value in trial.items() if not isinstance(value, dict)}
        assert row == {key: "" if value is None else str(value) for key, value in scalars.items()}
        assert float(row["last_accuracy"]) == trial["last_accuracy"]


def test_a_failing_write_leaves_the_old_file_and_nothing_else(results, tmp_path, monkeypatch):
    path = write_csv(results, tmp_path / "results.csv")
    before = path.read_bytes()

    def full(self, target):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files.Path, "replace", full)
    with pytest.raises(UsageError, match=r"results\.csv: No space left on device"):
        write_csv({**results, "trials": results["trials"][:1]}, path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_that_is_a_file_is_one_clear_line(results, tmp_path):
    (tmp_path / "taken").write_text("")
    with pytest.raises(UsageError, match=r"cannot write .*taken"):
        write_csv(results, tmp_path / "taken" / "results.csv")


@pytest.mark.parametrize("report", [summarise, markdown, lambda results: write_csv(results, "never.csv")])
def test_another_schema_or_no_trial_is_one_clear_line(results, report):
    with pytest.raises(UsageError, match=r"^results: schema 2 is unknown; this version reads schema 1$"):
        report({**results, "schema": 2})
    with pytest.raises(UsageError, match=r"^results: no finished trial"):
        report({**results, "trials": []})
