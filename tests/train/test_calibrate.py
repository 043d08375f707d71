"""--train.calibrate: once, before the first step and the first probe; what it set outlives a resume."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from lightning.pytorch.callbacks import Callback
from torch import Tensor, nn

import spikeback as sb
from spikeback.cli.interrupt import Interrupted
from spikeback.errors import UsageError
from spikeback.nn import LIF
from spikeback.train import Recipe, TrainConfig
from spikeback.train.results import check_recipe
from spikeback.train.start import prepare

pytestmark = pytest.mark.slow

GAIN = 0.5
NEW = ("optimizer", "calibrate", "packed_spikes")  # options that the first version did not have


class StopAtStep(Callback):
    def on_before_backward(self, trainer: L.Trainer, pl_module: L.LightningModule, loss: Tensor) -> None:
        if trainer.global_step == 6:
            raise Interrupted("interrupted")


class Halved:
    """A calibration that halves every gain."""

    def as_dict(self) -> dict[str, Any]:
        return {"gains": {"layer1.0": GAIN}, "norm_scale": None}


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What `calibrate` was called with; it halves the gains."""
    noted: list[dict[str, Any]] = []

    def calibrate(net: nn.Module, x: Tensor, y: Tensor, **targets: Any) -> Halved:
        noted.append({"x": x, "y": y, **targets})
        for module in net.modules():
            if isinstance(module, LIF):
                module.gain.mul_(GAIN)
        return Halved()

    monkeypatch.setattr("spikeback.train.start.calibrate", calibrate)
    return noted


@pytest.mark.parametrize(
    ("choice", "targets"),
    [
        ("auto", (None, 0.7)), ("gain", (1.0, None)), ("fidelity", (None, 0.7)), ("both", (1.0, 0.7)),
        ("Fidelity(0.6)", (None, 0.6)), ("Gain(2)", (2.0, None)), (["Fidelity(0.6)", "Gain"], (1.0, 0.6)),
    ],
)  # fmt: skip
def test_targets_follow_the_option(
    choice: str | list[str], targets: Any, train: Any, make_recipe: Callable[..., Recipe], calls: list[dict[str, Any]]
) -> None:
    record = train("vanilla", make_recipe(calibrate=choice, epochs=1))
    assert [(call["gain"], call["fidelity"]) for call in calls] == [targets]
    assert calls[0]["x"].shape == (32, 1, 8, 8)  # the probe
    assert calls[0]["y"].shape == (32,)
    assert record["calibration"] == Halved().as_dict()


def test_first_probe_sees_the_calibrated_network(
    train: Any, make_recipe: Callable[..., Recipe], calls: list[dict[str, Any]]
) -> None:
    plain = train("vanilla", make_recipe(epochs=1), out="plain")
    assert (plain["calibration"], calls) == (None, [])
    halved = train("vanilla", make_recipe(epochs=1, calibrate="gain"), out="halved")
    before, after = (record["gradients"]["norm"][0] for record in (plain, halved))
    assert after[-1] == pytest.approx(before[-1])  # no neuron comes after the last block
    assert after[0] < GAIN * before[0]


def test_resumed_run_is_not_calibrated_again(
    train: Any, make_recipe: Callable[..., Recipe], calls: list[dict[str, Any]], read_checkpoint: Any, tmp_path: Path
) -> None:
    recipe = make_recipe(calibrate="both", optimizer="adam", lr=0.003)
    whole = train("evolutionary", recipe, out="whole")
    with pytest.raises(Interrupted):
        train("evolutionary", recipe, StopAtStep(), out="parts")
    resumed = train("evolutionary", recipe, out="parts", resume=True)
    assert len(calls) == 2
    clock = {"seconds_per_step": 0}
    assert resumed | clock == whole | clock
    one, other = (
        read_checkpoint(tmp_path / name / "evolutionary-seed0" / "last.ckpt")["state_dict"]
        for name in ("whole", "parts")
    )
    assert all(torch.equal(value, other[name]) for name, value in one.items())
    assert {float(value) for name, value in one.items() if name.endswith(".gain")} == {GAIN}


def old(values: dict[str, Any]) -> dict[str, Any]:
    """A recipe as the first version wrote it."""
    return values | {"train": {name: value for name, value in values["train"].items() if name not in NEW}}


def test_missing_option_is_what_was_done_without_it(make_recipe: Callable[..., Recipe]) -> None:
    recipe = make_recipe()
    assert Recipe.from_dict(old(recipe.as_dict())) == recipe
    check_recipe(old(recipe.as_dict()), recipe, Path("run"))
    with pytest.raises(UsageError, match=r"differs in train\.optimizer;"):
        check_recipe(old(recipe.as_dict()), make_recipe(optimizer="adam"), Path("run"))
    with pytest.raises(UsageError, match=r"differs in train\.calibrate;"):
        check_recipe(old(recipe.as_dict()), make_recipe(calibrate="auto"), Path("run"))


@pytest.mark.parametrize(("given", "kept"), [
    ("Fidelity(0.7)", "fidelity"), ("Gain(target=1)", "gain"), (["Fidelity", "Gain(1.0)"], "both"), ([], "none"),
    ("fidelity(0.5)", "Fidelity(target=0.5)"),
    (["Fidelity(0.7)", "Gain(2)"], ["Gain(target=2.0)", "Fidelity(target=0.7)"]),
])  # fmt: skip
def test_a_target_is_written_in_one_way(given: str | list[str], kept: str | list[str]) -> None:
    """So that a run can go on by the same recipe in other words."""
    assert TrainConfig(calibrate=given).calibrate == kept
    assert TrainConfig(calibrate=kept).calibrate == kept


@pytest.mark.parametrize(("given", "said"), [
    ("fidelty", r"'fidelty' \(did you mean 'fidelity'\?\).*or auto, none, gain, fidelity, both"),
    ("Fidelity(2)", r"must lie in \(0, 1\)"),
    ("Gain(-1)", "must be a positive number"),
    (["Gain(1)", "Gain(2)"], "two targets of a kind"),
])  # fmt: skip
def test_a_target_that_cannot_be_is_refused(given: str | list[str], said: str) -> None:
    with pytest.raises(UsageError, match=rf"train\.calibrate.*{said}"):
        TrainConfig(calibrate=given)


def test_by_default_residual_norms_start_small_where_there_are_any() -> None:
    x, y = torch.randn(8, 3, 16, 16), torch.arange(8) % 5
    deep, flat = (sb.create_model(name, 5, time_steps=2, width=4) for name in ("spiking_resnet34", "spiking_vgg11"))
    train = Recipe().train
    assert train.calibrate == "auto"
    found = prepare(deep, x, y, train)
    assert found is not None
    assert found.norm_scale is not None
    assert found.norm_scale < 1
    before = [parameter.detach().clone() for parameter in flat.parameters()]
    assert prepare(flat, x, y, train) is None
    assert all(map(torch.equal, before, flat.parameters()))


def test_checkpoint_of_the_first_version_is_resumed(
    train: Any, make_recipe: Callable[..., Recipe], read_checkpoint: Any, tmp_path: Path
) -> None:
    recipe = make_recipe()
    whole = train("evolutionary", recipe, out="whole")
    with pytest.raises(Interrupted):
        train("evolutionary", recipe, StopAtStep(), out="parts")
    path = tmp_path / "parts" / "evolutionary-seed0" / "last.ckpt"
    content = read_checkpoint(path)
    del content["record"]["calibration"]
    card = next(state["card"] for state in content["callbacks"].values() if "card" in state)
    card["recipe"] = old(card["recipe"])
    torch.save(content, path)
    clock = {"seconds_per_step": 0}
    assert train("evolutionary", recipe, out="parts", resume=True) | clock == whole | clock
