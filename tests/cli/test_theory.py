"""`spikeback theory` on networks so small that it takes seconds: what it writes is what it measured."""

import copy
import json
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import spikeback as sb
from spikeback.data import DataConfig, DataModule
from spikeback.doctor.theory.mean_field import critical_height, mean_field
from spikeback.models.resnet import SpikingResNet
from spikeback.ops.surrogate import Tanh, Triangle

Command = Callable[..., Any]
WORDS = ["--samples", "16", "--size", "8", "--width", "8"]
FILES = {"theory.json", "gains.png", "gains.svg", "phases.png", "phases.svg"}
SMALL = {
    "MODELS": ("spiking_resnet18", "spiking_resnet34"),
    "SURROGATES": (Triangle(1.0), Tanh(3.0)),
    "THRESHOLDS": (0.5,),
    "HEIGHTS": (0.7, 2.0),
    "PHASES": (0.5, 1.0),
}


def create(name: str, classes: int, *, time_steps: int, in_channels: int, width: int, neuron: sb.LIF) -> SpikingResNet:
    """Two stages instead of four, of two blocks; of ResNet-34 three."""
    depths = {"spiking_resnet18": (2, 2), "spiking_resnet34": (3, 3)}[name]
    return SpikingResNet(depths, (1, 2), classes, "cifar", time_steps, in_channels, width, neuron, None)


@pytest.fixture
def networks(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """Notes what every network was made of."""
    made: list[dict[str, Any]] = []

    def noted(name: str, classes: int, **options: Any) -> SpikingResNet:
        made.append({"name": name, "classes": classes, **options})
        return create(name, classes, **options)

    for name, value in SMALL.items():
        for module in ("spikeback.lab.theory.phases", "spikeback.lab.theory.command"):
            monkeypatch.setattr(f"{module}.{name}", value)
    monkeypatch.setattr("spikeback.lab.theory.phases.FINE", 3)
    monkeypatch.setattr("spikeback.lab.theory.phases.create_model", noted)
    return made


def gains(made: dict[str, Any]) -> dict[str, tuple[float, float]]:
    """(gain, predicted) of every block of such a network, by `sb.diagnose`."""
    data = DataModule(DataConfig(name="embedded", size=8, batch_size=1), 0)
    data.setup()
    torch.manual_seed(0)
    net = create(made["name"], made["classes"], **{k: v for k, v in made.items() if k not in ("name", "classes")})
    found = sb.diagnose(net, *data.probe(16), passes=["theory"])
    return {row["name"]: (row["gain"], row["predicted"]) for row in found.blocks}


@pytest.mark.slow
def test_what_is_written_is_what_was_measured(command: Command, networks: Any, tmp_path: Path) -> None:
    outcome = command("theory", *WORDS, "--out", tmp_path)
    assert outcome.code == 0, outcome.err
    assert {path.name for path in tmp_path.iterdir()} == FILES
    found = json.loads((tmp_path / "theory.json").read_text())
    assert set(found) == {"schema", "command", "agreement", "networks", "phases", "identity_blocks", "relu"}
    assert (found["schema"], found["command"]) == (1, f"spikeback theory {' '.join(WORDS)} --out {tmp_path}")

    assert [(n["model"], n["surrogate"], n["threshold"], n["time_steps"]) for n in found["networks"]] == [
        (model, repr(surrogate), 0.5, steps)
        for model in SMALL["MODELS"]
        for surrogate in SMALL["SURROGATES"]
        for steps in (2, 4)
    ]
    for network, made in zip(found["networks"], networks, strict=False):
        assert (made["neuron"].threshold, made["time_steps"]) == (network["threshold"], network["time_steps"])
        assert (made["classes"], made["in_channels"], made["width"]) == (10, 1, 8)
    last, expected = found["networks"][-1], gains(networks[7])
    assert [row["name"] for row in last["blocks"]] == list(expected)
    for row in last["blocks"]:
        assert (row["gain"], row["predicted"]) == pytest.approx(expected[row["name"]], rel=1e-4)
    assert_agreement(found, outcome.out)
    assert_phases(found["phases"], copy.copy(networks[8:]))
    assert all((tmp_path / name).stat().st_size > 5000 for name in FILES - {"theory.json"})


def assert_agreement(found: dict[str, Any], printed: str) -> None:
    """The summary follows from the rows."""
    ratios = [row["predicted"] / row["gain"] for network in found["networks"] for row in network["blocks"]]
    assert found["agreement"] == {
        "blocks": 2 * 2 * (4 + 6),
        "median": pytest.approx(statistics.median(ratios)),
        "lowest": pytest.approx(min(ratios)),
        "highest": pytest.approx(max(ratios)),
        "within_factor_2": pytest.approx(sum(0.5 <= ratio <= 2 for ratio in ratios) / len(ratios)),
    }
    words = " ".join(printed.split())
    assert f"Theory over measurement, 40 blocks: median {statistics.median(ratios):.2f}" in words
    assert f"within a factor of 2: {found['agreement']['within_factor_2']:.0%}" in words


def assert_phases(phases: list[dict[str, Any]], made: list[dict[str, Any]]) -> None:
    """Lines are those of the mean field; points are medians over the blocks that are no first of a stage."""
    assert [line["threshold"] for line in phases] == [0.5, 1.0]
    for line in phases:
        unit, threshold = Triangle(1.0), line["threshold"]
        assert line["height"] == pytest.approx([0.7, (0.7 * 2.0) ** 0.5, 2.0])
        assert line["gain"] == pytest.approx([mean_field(unit, threshold, height=h) for h in line["height"]])
        assert line["critical"] == pytest.approx(critical_height(unit, threshold))
        assert mean_field(unit, threshold, height=line["critical"]) == pytest.approx(1, abs=1e-4)
        for height, point in zip((0.7, 2.0), line["measured"], strict=True):
            network = made.pop(0)
            assert (network["name"], network["neuron"].threshold) == ("spiking_resnet34", threshold)
            assert network["neuron"].surrogate == Triangle(height)
            same = [gain for name, (gain, _) in gains(network).items() if not name.endswith(".0")]
            assert len(same) == 4
            assert (point["threshold"], point["height"]) == (threshold, height)
            assert [point[key] for key in ("gain", "low", "high")] == pytest.approx(
                [statistics.median(same), min(same), max(same)], rel=1e-4
            )
    assert not made


@pytest.mark.slow
def test_without_out_it_only_prints(command: Command, networks: Any, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    for name, value in {"MODELS": ("spiking_resnet18",), "PHASES": (0.5,), "HEIGHTS": (1.0,)}.items():
        for module in ("spikeback.lab.theory.phases", "spikeback.lab.theory.command"):
            monkeypatch.setattr(f"{module}.{name}", value)
    outcome = command("theory", *WORDS)
    assert outcome.code == 0, outcome.err
    assert "spiking_resnet18" in outcome.out
    assert f"{critical_height(Triangle(1.0), 0.5):.3f} at threshold 0.5" in outcome.out
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["samples", "size", "width"])
def test_too_small_is_one_line(name: str, refused: Callable[..., str], networks: Any, tmp_path: Path) -> None:
    line = refused("theory", *WORDS, f"--{name}", 7, "--out", tmp_path / "out")
    assert f"--{name} must be at least 8, not 7" in line
    assert not networks
    assert not any(tmp_path.iterdir())
