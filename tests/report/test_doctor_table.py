import math
from itertools import pairwise

import pytest
from rich.cells import cell_len
from rich.console import Console

from spikeback.report.doctor import doctor_table, doctor_text
from spikeback.report.doctor_table import share, short, two


def _rows(text, name="layer"):
    return [line for line in text.splitlines() if line.startswith(name)]


@pytest.mark.parametrize("width", [80, 100])
@pytest.mark.parametrize("blocks", [3, 60])
def test_every_block_has_one_row_that_fits_and_is_not_cut(diagnosis, width, blocks):
    text = doctor_text(diagnosis(blocks), width)
    assert max(cell_len(line) for line in text.splitlines()) <= width
    assert "…" not in text
    rows = _rows(text)
    assert [row.split()[0] for row in rows] == [f"layer{i}" for i in range(blocks)]
    assert [row.split()[-1] for row in rows[:3]] == ["vanishing", "exploding", "dead"]
    for told in ("0.50", "0.60", "0.98", "40%", "30%", "<1%", "0.00", "<-99"):
        assert told in rows[1]


def test_a_bar_is_as_long_as_the_logarithm_of_the_gradient(diagnosis):
    facts = diagnosis(4, shrink=0.1)
    bars = [row.count("█") for row in _rows(doctor_text(facts, 120))]
    assert bars[3] == 24
    steps = [after - before for before, after in pairwise(bars)]
    assert steps in ([6, 6, 6], [5, 6, 6], [6, 6, 5], [6, 5, 6])
    assert "10⁻⁴" in doctor_text(facts, 120)
    growing = doctor_text(diagnosis(4, shrink=10.0), 120)
    assert "10⁻¹" in growing
    assert "10³" in growing
    assert all("│" in row or "█" * 6 in row for row in _rows(growing))


def test_what_was_not_measured_has_no_column(diagnosis):
    facts = diagnosis(3, predicted=None, relu=None, fidelity=None, coherence=None, descent=None)
    text = doctor_text(facts)
    for absent in ("pre-", "ReLU", "fide-", "cohe-", "des-", "predict", "coherent"):
        assert absent not in text
    facts["blocks"][1]["coherence"] = 0.5
    assert [row.split()[-2] for row in _rows(doctor_text(facts))] == ["–", "0.50", "–"]


def test_zero_infinite_and_undefined_gradients_are_told_apart(diagnosis):
    facts = diagnosis(4)
    for row, value in zip(facts["blocks"], (0.0, math.inf, math.nan, 1.0), strict=True):
        row["gradient"] = value
    zero, infinite, undefined, last = _rows(doctor_text(facts))
    assert " 0 " in zero
    assert "█" not in zero
    assert "∞" in infinite
    assert "nan" in undefined
    assert "1.00" in last
    facts["blocks"][-1]["gradient"] = 0.0
    assert all("█" not in row for row in _rows(doctor_text(facts)))


def test_a_narrow_console_loses_the_least_telling_columns_first(diagnosis):
    facts = diagnosis(3)
    for row in facts["blocks"]:
        row["name"] = f"layer.of.a.module.{row['name']}"
    text = doctor_text(facts, 80)
    assert max(cell_len(line) for line in text.splitlines()) <= 80
    assert "des-" not in text
    assert "gain" in text
    assert [row.split()[-1] for row in _rows(text)] == ["vanishing", "exploding", "dead"]


def test_kinds_are_coloured_and_names_are_no_markup(diagnosis):
    facts = diagnosis(3)
    facts["blocks"][0]["name"] = "[red]x"
    console = Console(width=80, force_terminal=True, color_system="standard", legacy_windows=False)
    with console.capture() as capture:
        console.print(doctor_table(facts))
    assert "[red]x" in capture.get()
    assert "\x1b[33mvanishing" in capture.get()


def test_the_text_ends_with_the_verdict_and_keeps_code_lines_whole(diagnosis):
    facts = diagnosis(3)
    code = f"     model = sb.ShortcutNet(net, taps={[f'layer{i}' for i in range(20)]})"
    facts["verdict"]["text"] += f"\n2. branches: {'word ' * 40}\n{code}"
    lines = doctor_text(facts, 80).splitlines()
    assert lines[0] == "SpikingResNet: batch 32, 2 time steps, loss 2.31"
    assert lines[-1] == code
    assert all(cell_len(line) <= 80 for line in lines[:-1])
    assert "     sb.calibrate(net, x)  # a < b" in lines


def test_numbers_are_short():
    values = (None, 0.0, 0.634, 9.994, 9.996, 123.4, 6.1e-4, -2e4, math.inf, 1e-300)
    assert [short(value) for value in values] == (
        ["–", "0", "0.63", "9.99", "10", "123", "6e-4", "-2e4", "∞", "1e-300"]
    )
    assert [share(value) for value in (None, 0.0, 0.001, 0.33, 0.999, 1.0)] == ["–", "0%", "<1%", "33%", ">99%", "100%"]
    assert [two(value) for value in (None, -0.001, 0.256, -0.3)] == ["–", "0.00", "0.26", "-0.30"]
