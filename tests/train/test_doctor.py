"""What a training records of its gradients: the first layer's, what branches supply, the doctor's rows by step."""

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import lightning as L
import numpy as np
import pytest
import torch
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers.logger import DummyLogger
from torch import Tensor, nn

from spikeback.cli.interrupt import Interrupted
from spikeback.data import DataModule
from spikeback.doctor import decompose
from spikeback.errors import UsageError
from spikeback.losses import DeepSupervision
from spikeback.losses.cross_entropy import mean_cross_entropy
from spikeback.train import Recipe, TrainConfig
from spikeback.train.start import add_branches

BLOCK_TAPS = {"taps": ["layer1.0", "layer2.1"]}
CLOCK = {"seconds_per_step": 0}  # the only number of a trial that does not repeat


class StopAtStep(Callback):
    def on_before_backward(self, trainer: L.Trainer, pl_module: L.LightningModule, loss: Tensor) -> None:
        if trainer.global_step == 6:
            raise Interrupted("interrupted")


class Board(DummyLogger):
    """Stands in for TensorBoard's logger, and keeps what it is told."""

    made: list["Board"]

    def __init__(self, save_dir: Path, name: str, version: str) -> None:
        super().__init__()
        self.folder, self.rows = Path(save_dir) / name / version, []
        self.made.append(self)

    def log_metrics(self, metrics: dict[str, float], step: Any = None) -> None:
        self.rows.append((step, metrics))


@pytest.fixture
def boards(monkeypatch: pytest.MonkeyPatch) -> list[Board]:
    """The loggers that trainings made."""
    Board.made = []
    monkeypatch.setattr("spikeback.train.trials.TensorBoardLogger", Board)
    return Board.made


def untrained(recipe: Recipe, plain_net: Callable[..., nn.Module]) -> tuple[nn.Module, Tensor, Tensor]:
    """The network that seed 0 starts with, in training mode, and the probe."""
    data = DataModule(recipe.data, 0)
    data.setup()
    torch.manual_seed(0)
    return plain_net(recipe).train(), *data.probe(recipe.train.probe)


def events(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (path / "events.jsonl").read_text().splitlines()]


@pytest.mark.slow
def test_first_layers_gradient_is_a_histogram(train: Any, make_recipe: Any, plain_net: Any) -> None:
    recipe = make_recipe(epochs=2)
    gradients = train("vanilla", recipe)["gradients"]
    net, x, y = untrained(recipe, plain_net)
    name, weight = next((name, p) for name, p in net.named_parameters() if p.ndim > 1)
    found = gradients["first_layer"]
    assert set(found) == {"name", "edges", "counts", "zeros"}
    assert found["name"] == name
    assert found["edges"] == pytest.approx(np.linspace(-12, 2, 57), abs=1e-5)
    assert gradients["step"] == [0, 4, 8]
    assert [sum(row) + zeros for row, zeros in zip(found["counts"], found["zeros"], strict=True)] == 3 * [
        weight.numel()
    ]
    mean_cross_entropy(net(x), y).backward()
    assert weight.grad is not None
    sizes = weight.grad.abs().flatten().numpy()
    by_hand, _ = np.histogram(np.log10(sizes[sizes > 0]), found["edges"])
    assert np.abs(np.cumsum(by_hand - found["counts"][0])).max() <= 1  # one may lie on an edge
    assert found["zeros"][0] == (sizes == 0).sum()


@pytest.mark.slow
def test_branches_share_the_first_blocks_gradient(train: Any, make_recipe: Any, plain_net: Any) -> None:
    recipe = make_recipe(branches=BLOCK_TAPS, epochs=2, probe=40)
    gradients = train("evolutionary", recipe)["gradients"]
    found = gradients["shares"]
    assert set(found) == {"sources", "step", "first_block"}
    assert found["sources"] == ["main", "layer1.0", "layer2.1"]
    assert found["step"] == gradients["step"] == [0, 4, 8]
    assert [len(row) for row in found["first_block"]] == [3, 3, 3]
    assert [sum(row) for row in found["first_block"]] == pytest.approx([1, 1, 1], abs=1e-5)
    net, x, y = untrained(recipe, plain_net)
    parts = decompose(add_branches(net, recipe.branches), x[:32], y[:32], 0.25)["layer1.0"]
    assert found["first_block"][0] == pytest.approx([part["share"] for part in parts.values()], abs=1e-4)


@pytest.mark.slow
def test_losses_of_branches_are_told_apart_as_they_are_trained(train: Any, make_recipe: Any, plain_net: Any) -> None:
    recipe = make_recipe(branches=BLOCK_TAPS, epochs=1, loss="DeepSupervision()")
    found = train("shortcut", recipe)["gradients"]["shares"]
    net, x, y = untrained(recipe, plain_net)
    parts = decompose(add_branches(net, recipe.branches), x, y, 1.0, DeepSupervision())["layer1.0"]
    assert found["first_block"][0] == pytest.approx([part["share"] for part in parts.values()], abs=1e-4)


@pytest.mark.parametrize("method", ["vanilla", "Evolutionary(start=0)"])
@pytest.mark.slow
def test_without_branches_nothing_is_shared(method: str, train: Any, make_recipe: Any) -> None:
    assert set(train(method, make_recipe(epochs=1))["gradients"]) == {"blocks", "step", "norm", "first_layer"}


@pytest.mark.slow
def test_doctor_has_a_row_a_step(train: Any, make_recipe: Any, tmp_path: Path) -> None:
    record = train("evolutionary", make_recipe(doctor=1, epochs=2))
    doctor, gradients = record["doctor"], record["gradients"]
    assert doctor["blocks"] == gradients["blocks"]
    assert doctor["step"] == list(range(9))
    rows = ("loss", "gradient", "rate", "silent", "active")
    assert set(doctor) == {"blocks", "step", *rows}
    assert [len(doctor[key]) for key in rows] == [9] * 5
    assert doctor["gradient"][0] == pytest.approx(gradients["norm"][0], rel=1e-4)  # later, rounding may flip a spike
    assert json.loads((tmp_path / "run" / "results.json").read_text())["trials"][0]["doctor"] == doctor
    lines = [line for line in events(tmp_path / "run" / "evolutionary-seed0") if line["event"] == "doctor"]
    assert [{key: line[key] for key in ("step", *rows)} for line in lines] == [
        {key: doctor[key][i] for key in ("step", *rows)} for i in range(9)
    ]
    assert {(line["method"], line["seed"]) for line in lines} == {("evolutionary", 0)}


@pytest.mark.slow
def test_doctor_sees_the_calibrated_network(train: Any, make_recipe: Any) -> None:
    """Lightning calls a callback before the task that calibrates."""
    record = train("vanilla", make_recipe(calibrate="gain", doctor=4, epochs=1))
    assert set(record["calibration"]["gains"].values()) != {1.0}
    assert record["doctor"]["gradient"][0] == pytest.approx(record["gradients"]["norm"][0], rel=1e-4)


@pytest.mark.slow
def test_training_is_the_same_with_the_doctor(
    train: Any, make_recipe: Any, read_checkpoint: Any, boards: list[Board], tmp_path: Path
) -> None:
    plain = train("evolutionary", make_recipe(), out="plain")
    watched = train("evolutionary", make_recipe(doctor=5, tensorboard=True), out="watched")
    assert watched.pop("doctor")["step"] == [0, 5, 10]
    assert "doctor" not in plain
    assert plain | CLOCK == watched | CLOCK
    one, other = (
        read_checkpoint(tmp_path / out / "evolutionary-seed0" / "last.ckpt")["state_dict"]
        for out in ("plain", "watched")
    )
    assert all(torch.equal(value, other[name]) for name, value in one.items())


@pytest.mark.slow
def test_resumed_equals_uninterrupted(
    train: Any, make_recipe: Any, read_checkpoint: Any, boards: list[Board], tmp_path: Path
) -> None:
    recipe = make_recipe(branches=BLOCK_TAPS, doctor=1, tensorboard=True, calibrate="gain", epochs=2)
    whole = train("evolutionary", recipe, out="whole")
    with pytest.raises(Interrupted):
        train("evolutionary", recipe, StopAtStep(), out="parts")
    resumed = train("evolutionary", recipe, out="parts", resume=True)
    assert resumed | CLOCK == whole | CLOCK
    assert resumed["doctor"]["step"] == list(range(9))
    one, other = (read_checkpoint(tmp_path / out / "evolutionary-seed0" / "last.ckpt") for out in ("whole", "parts"))
    assert one["state_dict"].keys() == other["state_dict"].keys()
    assert all(torch.equal(value, other["state_dict"][name]) for name, value in one["state_dict"].items())
    assert one["callbacks"] == other["callbacks"]


@pytest.mark.slow
def test_callbacks_take_no_time_of_a_step(train: Any, make_recipe: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The clock stands still, but for a callback after every step that takes an hour."""
    clock = [0.0]
    monkeypatch.setattr("spikeback.train.task.time", SimpleNamespace(perf_counter=lambda: clock[0]))

    class Hour(Callback):
        def on_train_batch_end(self, *args: Any, **options: Any) -> None:
            clock[0] += 3600

    assert train("vanilla", make_recipe(epochs=1), Hour())["seconds_per_step"] == 0
    assert clock == [4 * 3600]


@pytest.mark.slow
def test_tensorboard_gets_losses_and_the_doctors_rows(
    train: Any, make_recipe: Any, boards: list[Board], tmp_path: Path
) -> None:
    record = train("vanilla", make_recipe(doctor=2, tensorboard=True, epochs=1))
    board = boards[-1]
    assert board.folder == tmp_path / "run" / "vanilla-seed0" / "tensorboard"
    losses = [values["train/loss"] for _, values in board.rows if "train/loss" in values]
    assert sum(losses) / 4 == pytest.approx(record["history"]["train_loss"][0])
    rows = [(step, values) for step, values in board.rows if "doctor/gradient/layer1.0" in values]
    assert [step for step, _ in rows] == record["doctor"]["step"] == [0, 2, 4]
    assert [values["doctor/gradient/layer1.0"] for _, values in rows] == [
        row[0] for row in record["doctor"]["gradient"]
    ]


def test_tensorboard_without_its_package(train: Any, make_recipe: Any, monkeypatch: Any, tmp_path: Path) -> None:
    def lacking(*args: Any, **options: Any) -> None:
        raise ModuleNotFoundError("Neither `tensorboard` nor `tensorboardX` is available.")

    monkeypatch.setattr("spikeback.train.trials.TensorBoardLogger", lacking)
    with pytest.raises(UsageError, match=r"train\.tensorboard .*pip install tensorboard"):
        train("vanilla", make_recipe(tensorboard=True))
    assert not (tmp_path / "run").exists()  # so that the same command works once it is installed


def test_doctor_never_or_every_so_many_steps() -> None:
    assert TrainConfig().doctor == 0
    with pytest.raises(UsageError, match=r"^train\.doctor must be at least 0, not -1"):
        TrainConfig(doctor=-1)
