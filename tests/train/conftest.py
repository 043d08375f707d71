"""Trainings that last a second, and a callback that watches them."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from lightning.pytorch.callbacks import Callback
from torch import Tensor, nn

import spikeback as sb
from spikeback.data import DataConfig
from spikeback.losses import Loss
from spikeback.train import Method, ModelConfig, Recipe, TrainConfig, compare
from spikeback.train.trials import Run

Train = Callable[..., dict[str, Any]]


@dataclass(frozen=True)
class Noting:
    """A loss that notes the lambda that it is called with."""

    loss: Loss
    lambdas: list[float]

    def __call__(self, main: Tensor, side: dict[str, Tensor], weight: float, y: Tensor) -> Tensor:
        self.lambdas.append(weight)
        return self.loss(main, side, weight, y)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.loss, name)


class Watch(Callback):
    """Notes weights at the start and after every step, and of each step: images, labels, lambda, learning rate."""

    def __init__(self) -> None:
        self.weights: list[dict[str, Tensor]] = []
        self.batches: list[tuple[Tensor, Tensor]] = []
        self.lambdas: list[float] = []
        self.rates: list[float] = []
        self.groups: list[dict[str, Any]] = []
        self.task: Any = None

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.task, self.groups = pl_module, trainer.optimizers[0].param_groups
        self._snapshot()

    def on_train_batch_start(self, trainer: L.Trainer, pl_module: Any, batch: Any, batch_idx: int) -> None:
        self.batches.append((batch[0].clone(), batch[1].clone()))
        self.rates.append(self.groups[0]["lr"])
        self._loss, pl_module.criterion = pl_module.criterion, Noting(pl_module.criterion, self.lambdas)

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        pl_module.criterion = self._loss
        self._snapshot()

    def _snapshot(self) -> None:
        self.weights.append({k: v.clone() for k, v in self.task.model.state_dict().items()})


@pytest.fixture
def make_recipe() -> Callable[..., Recipe]:
    """A recipe of 4 steps an epoch; `data`, `model` and `branches` are dictionaries, the rest goes to TrainConfig."""

    def make(data: Any = None, model: Any = None, branches: Any = None, **train: Any) -> Recipe:
        data = {"size": 8, "limit": 128, "batch_size": 32} | (data or {})
        model = {"name": "spiking_resnet20_he", "width": 4, "time_steps": 2} | (model or {})
        recipe = Recipe(
            data=DataConfig(**data),
            model=ModelConfig(**model),
            train=TrainConfig(**{"epochs": 3, "precision": "32-true", "probe": 32, "calibrate": "none"} | train),
        )
        for name, value in (branches or {}).items():
            setattr(recipe.branches, name, value)
        return recipe

    return make


@pytest.fixture
def train(tmp_path: Path, make_recipe: Callable[..., Recipe]) -> Train:
    """train(method, recipe, callbacks, out="run", resume=False, seed=0) -> the trial's record; files under tmp_path."""

    def run(
        method: str,
        recipe: Recipe | None = None,
        *callbacks: Callback,
        out: str = "run",
        resume: bool = False,
        seed: int = 0,
    ) -> dict[str, Any]:
        folder = Run(recipe or make_recipe(), tmp_path / out, callbacks=lambda method, seed: list(callbacks))
        return compare(folder, [Method.from_text(method)], [seed], resume)["trials"][0]

    return run


@pytest.fixture
def watch() -> Callable[[], Watch]:
    return Watch


@pytest.fixture
def plain_net() -> Callable[..., nn.Module]:
    """The recipe's network built by hand: default neurons (tau 0.25, threshold 0.5, normalised tanh, k 3)."""

    def make(recipe: Recipe) -> nn.Module:
        neuron = sb.LIF(0.25, 0.5, sb.surrogate.Tanh(3.0))
        model = recipe.model
        return sb.create_model(model.name, 10, "cifar", model.time_steps, 1, model.width, neuron)

    return make


@pytest.fixture
def read_checkpoint() -> Callable[[Path], dict[str, Any]]:
    return lambda path: torch.load(path, map_location="cpu", weights_only=True)
