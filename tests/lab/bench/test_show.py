import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from rich.console import Console

from spikeback.lab.bench.measure import at_inference, same_networks, write
from spikeback.lab.bench.show import bar, show

MadeUp = Callable[..., dict[str, Any]]


def shown(results: dict[str, Any], width: int = 100) -> str:
    stream = io.StringIO()
    show(results, Console(file=stream, width=width))
    return stream.getvalue()


@pytest.mark.parametrize("width", [80, 140])
def test_table_has_every_arm_and_comparison(bench: str, made_up: MadeUp, width: int) -> None:
    results = made_up(bench)
    text = shown(results, width)
    if width == 140:
        assert all(arm["name"] in text for arm in results["arms"])
    assert all(f" {1e3 * arm['seconds_median']:,.0f} " in text for arm in results["arms"])
    expected = [c for c in results["comparisons"] if c["met"] is not None]
    assert text.count("≤ ") + text.count("≥ ") == text.count("✓") + text.count("✗") == len(expected)
    assert max(len(line) for line in text.splitlines() if line.startswith("│")) <= width
    assert ("1,234 weights in the convolutions of every network" in text) is (results["notes"] != [])


def test_an_arm_without_figures_is_named_with_its_reason(made_up: MadeUp) -> None:
    results = made_up("step")
    results["arms"][0] |= {"error": "RuntimeError: it broke"}
    results["arms"][1] |= {"seconds": [], "absent": "no such thing"}
    text = shown(results)
    assert f"{results['arms'][0]['name']}: failed: RuntimeError: it broke" in text
    assert f"{results['arms'][1]['name']}: absent: no such thing" in text


@pytest.mark.slow
def test_file_and_plot_hold_what_was_measured(bench: str, made_up: MadeUp, tmp_path: Path) -> None:
    results = made_up(bench)
    file, image = write(results, tmp_path / "new" / f"{bench}.json")
    read = json.loads(file.read_text())
    assert [arm["seconds"] for arm in read["arms"]] == [arm["seconds"] for arm in results["arms"]]
    assert read["arms"][0]["seconds_median"] == 1.1
    assert image == tmp_path / "new" / f"{bench}.png"
    with Image.open(image) as opened:
        assert min(opened.size) > 400


@pytest.mark.slow
def test_plot_of_no_figures_is_still_an_image(made_up: MadeUp, tmp_path: Path, bench: str) -> None:
    results = made_up(bench)
    for arm in results["arms"]:
        arm["error"] = "it broke"
    assert write(results, tmp_path / "none.json")[1].is_file()


def test_another_network_is_pointed_out(made_up: MadeUp) -> None:
    arms = made_up("step")["arms"]
    arms[-1]["facts"]["convolution_weights"] = 99
    (note,) = same_networks(arms)
    assert note.startswith("NOT THE SAME NETWORK")
    assert f"{arms[-1]['name']} (99)" in note


def test_networks_of_other_races_may_be_others(made_up: MadeUp) -> None:
    arms = made_up("branches")["arms"]
    for arm in arms:
        arm["facts"]["convolution_weights"] += arm["at"]
    assert same_networks(arms) == [f"{n:,} weights in the convolutions of every network" for n in (1252, 1268)]


def test_branches_are_counted_and_gone_when_stripped(made_up: MadeUp) -> None:
    results = made_up("branches")
    text = shown(results, 140)
    assert all(f"{arm['facts']['parameters_training']:,}" in text for arm in results["arms"])
    assert "ResNet-18, stripped: 1,300 parameters, 5,000,000 MACs an image, whatever branches it had" in text
    results["arms"][1]["facts"]["macs_inference"] += 1
    first, second = at_inference(results["arms"])
    assert "ResNet-18, NOT THE SAME WHEN STRIPPED" in first
    assert second.startswith("ResNet-34, stripped")


def test_bars_are_as_long_as_what_they_show() -> None:
    assert [bar(share, 4) for share in (0, 1 / 32, 0.5, 0.53, 1)] == ["", "▏", "██", "██▏", "████"]
