"""Last and best accuracy: of the main branch alone, recomputed by hand from what a trial leaves behind."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import lightning as L
import pytest
import torch
from lightning.pytorch.callbacks import Callback
from safetensors.torch import load_file

from spikeback.data import DataModule
from spikeback.train.checkpoint import Checkpoints
from spikeback.train.start import build_network

VGG = {"name": "spiking_vgg11", "width": 4, "time_steps": 1, "threshold": 0.5, "surrogate": "ATan(alpha=2.0)"}


class ForgetInLastEpoch(Callback):
    """Empties the classifier before the last validation: whatever was learnt before, the last epoch is at chance."""

    def on_validation_start(self, trainer: L.Trainer, pl_module: Any) -> None:
        if trainer.current_epoch == 2:
            for p in pl_module.model.net.fc.parameters():
                torch.nn.init.zeros_(p)


@pytest.fixture
def recipe(make_recipe: Callable[..., Any]) -> Callable[..., Any]:
    """Learns to tell some of the classes within a second; 16 steps an epoch."""
    data = {"limit": 512, "crop_padding": 0, "flip": False}
    return lambda **train: make_recipe(data=data, model=VGG, **train)


def accuracy(net: torch.nn.Module, data: DataModule) -> float:
    net.eval()
    with torch.no_grad():
        hits = sum(int((net(x).mean(0).argmax(1) == y).sum()) for x, y in data.test_dataloader())
    return round(hits / data.sizes["test"], 6)


@pytest.mark.parametrize("best_on", ["held-out", "test"])
@pytest.mark.slow
def test_best_epoch_is_the_one_with_the_best_choice(
    best_on: str, train: Callable[..., Any], recipe: Callable[..., Any]
) -> None:
    record = train("evolutionary", recipe(best_on=best_on), ForgetInLastEpoch())
    history = record["history"]
    chosen_by = history["held_out_accuracy" if best_on == "held-out" else "test_accuracy"]
    assert record["best_on"] == best_on
    assert record["best_epoch"] == 1 + chosen_by.index(max(chosen_by)) < 3
    assert record["best_accuracy"] == history["test_accuracy"][record["best_epoch"] - 1]
    assert record["last_accuracy"] == history["test_accuracy"][-1] == 0.1  # one class in ten
    assert record["best_accuracy"] > 0.15


def test_of_equal_epochs_the_first_is_best(tmp_path: Path) -> None:
    saved: list[str] = []
    trainer: Any = SimpleNamespace(save_checkpoint=lambda path: saved.append(path.stem))
    accuracies = [0.2, 0.5, 0.5, 0.4]
    for i in range(1, 5):
        task: Any = SimpleNamespace(history={"held_out_accuracy": accuracies[:i]})
        Checkpoints(tmp_path, {}).on_train_epoch_end(trainer, task)
    assert saved == ["last", "best", "last", "best", "last", "last"]


@pytest.mark.slow
def test_held_out_images_are_never_trained_on(
    train: Callable[..., Any], recipe: Callable[..., Any], watch: Callable[[], Any]
) -> None:
    chosen, seen = recipe(epochs=1), watch()
    train("vanilla", chosen, seen)
    data = DataModule(chosen.data, seed=0)
    data.setup()
    trained = {x.numpy().tobytes() for batch, _ in seen.batches for x in batch}
    held_out = {x.numpy().tobytes() for batch, _ in data.val_dataloader() for x in batch}
    test = {x.numpy().tobytes() for batch, _ in data.test_dataloader() for x in batch}
    assert len(trained) == 512
    assert not trained & held_out
    assert not trained & test
    assert not held_out & test


@pytest.mark.slow
def test_accuracies_are_those_of_the_plain_network(
    train: Callable[..., Any],
    recipe: Callable[..., Any],
    read_checkpoint: Callable[[Path], Any],
    tmp_path: Path,
) -> None:
    chosen = recipe()
    record = train("shortcut", chosen, ForgetInLastEpoch())
    folder = tmp_path / "run" / "shortcut-seed0"
    data = DataModule(chosen.data, seed=0)
    data.setup()
    net = build_network(chosen.model, 10, 1)

    net.load_state_dict(load_file(folder / "net.safetensors"), strict=True)
    assert accuracy(net, data) == record["best_accuracy"] > record["last_accuracy"]
    for name in ("best", "last"):
        weights = read_checkpoint(folder / f"{name}.ckpt")["state_dict"]
        net.load_state_dict({k.removeprefix("model.net."): v for k, v in weights.items() if "model.net." in k})
        assert accuracy(net, data) == record[f"{name}_accuracy"]


@pytest.mark.slow
def test_sum_accuracy_is_that_of_what_was_trained(
    train: Callable[..., Any], recipe: Callable[..., Any], watch: Callable[[], Any]
) -> None:
    chosen, seen = recipe(), watch()
    record = train("shortcut", chosen, seen)
    data = DataModule(chosen.data, seed=0)
    data.setup()
    model = seen.task.model.eval()
    with torch.no_grad():
        hits = sum(int((model(x, 1.0).mean(0).argmax(1) == y).sum()) for x, y in data.test_dataloader())
    assert record["last_sum_accuracy"] == round(hits / 1000, 6)
    assert record["history"]["test_sum_accuracy"][-1] == record["last_sum_accuracy"]


@pytest.mark.slow
def test_parameters_at_inference_are_those_of_the_plain_network(
    train: Callable[..., Any], make_recipe: Callable[..., Any], plain_net: Callable[..., Any]
) -> None:
    recipe = make_recipe(epochs=1)
    record = train("evolutionary", recipe)
    plain = sum(p.numel() for p in plain_net(recipe).parameters())
    # two branches, K = 10 classes: the last stage's is the main branch itself
    assert record["parameters_inference"] == plain
    assert record["parameters_training"] == plain + (4 + 1) * 10 + (8 + 1) * 10
    assert (record["epochs"], record["steps"]) == (1, 4)
