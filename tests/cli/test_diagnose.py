"""`spikeback diagnose`: what it says is `sb.diagnose` of the same network on the same images."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import spikeback as sb
from spikeback.data import DataConfig, DataModule
from spikeback.doctor import PASSES

Command = Callable[..., Any]
FILES = {"report.html", "diagnosis.json", "diagnosis.png", "diagnosis.svg"}
TOP = {"schema", "net", "residual", "branches", "batch_size", "time_steps", "loss", "lr", "blocks", "layers", "weights",
       "verdict", "command", "notes", "alike", "constant", "classes", "frozen", "evaluation",
       "stale_blocks"}  # fmt: skip
BLOCK = {"name", "kind", "gradient", "gradient_by_step", "gain", "predicted", "relu", "relu_predicted", "rate",
         "rate_by_step", "silent", "saturated", "active", "derivative", "second_moment", "fidelity", "unrelated",
         "relu_fidelity", "coherence", "descent", "participation", "share"}  # fmt: skip
MEASURED = {  # by pass; of the ReLU twin the fidelity is known only with both of two passes
    "fidelity": {"fidelity", "unrelated", "participation"},
    "coherence": {"coherence"},
    "descent": {"descent"},
    "theory": {"predicted", "relu", "relu_predicted"},
}
QUICK = ["--samples", "16", "--passes", "coherence"]


@pytest.fixture
def examined(command: Command, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., dict[str, Any]]:
    """examined(*words): diagnosis.json of `spikeback diagnose` with these words; without `draw` no image and no page,
    which take seconds.
    """

    def call(*words: object, draw: bool = False) -> dict[str, Any]:
        with monkeypatch.context() as patched:
            if not draw:
                patched.setattr("spikeback.cli.diagnose.save_diagnosis", lambda facts, out: [])
                patched.setattr("spikeback.cli.diagnose.write_diagnosis", lambda facts, path: path)
            outcome = command("diagnose", *words, "--out", tmp_path / "out")
        assert outcome.code == 0, outcome.err
        assert {path.name for path in (tmp_path / "out").iterdir()} == (FILES if draw else {"diagnosis.json"})
        return json.loads((tmp_path / "out" / "diagnosis.json").read_text())

    return call


def probe(size: int, seed: int = 0, samples: int = 16) -> tuple[torch.Tensor, torch.Tensor]:
    data = DataModule(DataConfig(size=size, limit=128, batch_size=32), seed)
    data.setup()
    return data.probe(samples)


def tiny_net(seed: int = 0) -> Any:
    torch.manual_seed(seed)
    neuron = sb.LIF(0.25, 0.5, sb.surrogate.Tanh(3.0))
    return sb.create_model("spiking_resnet20_he", 10, "cifar", 1, 1, 4, neuron)


def assert_same(found: dict[str, Any], expected: Any) -> None:
    """The numbers of a diagnosis, as JSON has them."""
    assert {k: v for k, v in found.items() if k != "command"} == json.loads(json.dumps(expected.as_dict()))


@pytest.mark.slow
def test_untrained_network_of_a_recipe(examined: Any, tiny: list[str], tmp_path: Path) -> None:
    words = [*tiny, "--seed", 3, "--train.lr", "0.02", "--samples", 16]
    found = examined(*words, draw=True)
    assert set(found) == TOP
    assert all(set(block) == BLOCK for block in found["blocks"])
    assert found["command"].startswith("spikeback diagnose --model.name spiking_resnet20_he")
    assert (found["schema"], found["net"], found["batch_size"], found["lr"]) == (1, "SpikingResNet", 16, 0.02)
    assert_same(found, sb.diagnose(tiny_net(3), *probe(8, 3), lr=0.02))
    page = (tmp_path / "out" / "report.html").read_text()
    assert found["verdict"]["kind"] in page
    assert all(block["name"] in page for block in found["blocks"])
    assert (tmp_path / "out" / "diagnosis.png").read_bytes().startswith(b"\x89PNG")
    assert "</svg>" in (tmp_path / "out" / "diagnosis.svg").read_text()


@pytest.mark.slow
def test_network_of_a_recipe_is_set_up_as_its_training_sets_it_up(examined: Any, tiny: list[str]) -> None:
    found = examined(*tiny, "--train.calibrate", "auto", *QUICK)
    net = tiny_net()
    assert sb.calibrate(net, *probe(8, samples=32), gain=None, fidelity=0.7).norm_scale != 1
    assert_same(found, sb.diagnose(net, *probe(8), passes=["coherence"]))


@pytest.mark.slow
def test_without_out_it_only_prints(command: Command, tiny: list[str], tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    outcome = command("diagnose", *tiny, *QUICK)
    assert outcome.code == 0, outcome.err
    verdict = sb.diagnose(tiny_net(), *probe(8), passes=["coherence"]).verdict
    assert " ".join(str(verdict).split()) in " ".join(outcome.out.split())
    assert "layer3.2" in outcome.out
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize("checkpoint", ["best", "last"])
@pytest.mark.slow
def test_trained_network(checkpoint: str, examined: Any, finished: Path) -> None:
    folder = finished / "evolutionary-seed1"
    found = examined(folder, "--checkpoint", checkpoint, *QUICK)
    if checkpoint == "best":
        weights = load_file(folder / "net.safetensors")
    else:
        state = torch.load(folder / "last.ckpt", weights_only=True)["state_dict"]
        weights = {name.removeprefix("model.net."): v for name, v in state.items() if name.startswith("model.net.")}
    net = tiny_net()
    net.load_state_dict(weights)
    assert_same(found, sb.diagnose(net, *probe(8, 1), passes=["coherence"]))


@pytest.mark.slow
def test_run_of_one_trial_and_checkpoint_file(examined: Any, run: Path) -> None:
    for folder in run.glob("*-seed*"):
        if folder.name != "vanilla-seed0":
            shutil.rmtree(folder)
    found = examined(run, *QUICK)
    again = examined(run / "vanilla-seed0" / "best.ckpt", *QUICK)
    assert found.pop("command") != again.pop("command")
    assert found == again


@pytest.mark.slow
def test_untrained_network_with_its_branches(examined: Any, tiny: list[str]) -> None:
    found = examined(*tiny, "--weight", "0.25", "--branches.taps", "block", *QUICK)
    assert found["net"] == "ShortcutNet"
    net = sb.ShortcutNet(tiny_net(), "block")
    assert_same(found, sb.diagnose(net, *probe(8), weight=0.25, passes=["coherence"]))


@pytest.mark.parametrize("passes", [[], ["theory"], ["fidelity", "descent"]])
def test_passes_are_chosen(passes: list[str], examined: Any, tiny: list[str]) -> None:
    found = examined(*tiny, "--samples", 16, "--passes", *passes)
    measured = {name for name in set().union(*MEASURED.values()) if any(b[name] is not None for b in found["blocks"])}
    assert measured == set().union(*(MEASURED[name] for name in passes))


# words -> what the line must contain: the offending name, and what would be right
BAD: dict[str, tuple[list[str], list[str]]] = {
    "two samples": (["--samples", "2"], ["--samples", "at least 8", "2"]),
    "samples in words": (["--samples", "all"], ["--samples", "all", "int"]),
    "pass": (["--passes", "theorie"], ["--passes", "theorie", *PASSES]),
    "run": (["gone/vanilla-seed0"], ["no run gone/vanilla-seed0", "trial's folder"]),
    "checkpoint": (["--checkpoint", "first"], ["--checkpoint", "first", "best", "last"]),
    "weight in words": (["--weight", "heavy"], ["--weight", "heavy", "float"]),
    "weight is infinite": (["--weight", "inf"], ["--weight", "inf", "float"]),
    "negative seed": (["--seed", "-1"], ["--seed", "0 ..", "-1"]),
    "enormous seed": (["--seed", "9" * 30], ["--seed", str(2**32 - 1), "9" * 30]),
    "tap": (["--weight", "1", "--branches.taps", "[layer9]"], ["--branches.taps", "'layer9'", "layer1.0"]),
    "model": (["--model.name", "resnet9"], ["--model.name", "'resnet9'", *sb.list_models()]),
    "option": (["--smaples", "9"], ["--smaples", "--samples"]),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_options_are_one_line(case: str, refused: Any, tiny: list[str], tmp_path: Path) -> None:
    words, expected = BAD[case]
    line = refused("diagnose", *words, *(tiny if "--model.name" not in words else []), "--out", tmp_path / "out")
    assert [part for part in expected if part not in line] == []
    assert not any(tmp_path.iterdir())


def test_weight_and_recipe_are_for_untrained_networks(refused: Any, finished: Path, tmp_path: Path) -> None:
    line = refused("diagnose", finished / "vanilla-seed0", "--weight", "0.25", "--out", tmp_path / "out")
    assert "--weight: a checkpoint is examined without its branches" in line
    line = refused("diagnose", finished / "vanilla-seed0", "--config", "demo", "--out", tmp_path / "out")
    assert "--config: a trained network brings its recipe along" in line
    assert not any(tmp_path.iterdir())


def test_run_of_several_trials_names_them(refused: Any, finished: Path, tmp_path: Path) -> None:
    line = refused("diagnose", finished, "--out", tmp_path / "out")
    assert "4 trials" in line
    assert str(finished / "evolutionary-seed1") in line
    assert not any(tmp_path.iterdir())


@pytest.mark.slow
def test_out_that_is_a_file(refused: Any, tiny: list[str], tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("mine")
    assert f"cannot write {path}" in refused("diagnose", *tiny, *QUICK, "--out", path)
    assert [p.name for p in tmp_path.iterdir()] == ["file"]
    assert path.read_text() == "mine"
