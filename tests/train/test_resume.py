"""A run that was interrupted and resumed ends where an uninterrupted one ends: to the bit, on the CPU."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from lightning.pytorch.callbacks import Callback

from spikeback.cli.interrupt import Interrupted
from spikeback.errors import UsageError

TIMES = {"seconds_per_step"}  # a clock does not repeat itself


class StopAtStep(Callback):
    """Interrupts in the middle of the step after `step` optimiser steps."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_before_backward(self, trainer: L.Trainer, pl_module: L.LightningModule, loss: torch.Tensor) -> None:
        if trainer.global_step == self.step:
            raise Interrupted("interrupted")


class StopInValidation(Callback):
    """Interrupts the validation after epoch 2: its steps are done, its checkpoint is not yet written."""

    def on_validation_batch_end(self, trainer: L.Trainer, *args: Any, **kwargs: Any) -> None:
        if trainer.global_step == 8:
            raise Interrupted("interrupted")


class StopAtEnd(Callback):
    """Interrupts after the last epoch's checkpoint, before the trial's record is written."""

    def on_fit_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        raise Interrupted("interrupted")


STOPS: dict[str, tuple[Callable[[], Callback], int]] = {  # and the steps of the whole epochs before
    "in epoch 1": (lambda: StopAtStep(2), 0),
    "after epoch 1": (lambda: StopAtStep(4), 4),
    "in epoch 2": (lambda: StopAtStep(6), 4),
    "in validation": (StopInValidation, 4),
    "at the end": (StopAtEnd, 12),
}


def assert_same(a: Any, b: Any) -> None:
    """Equal to the bit, at any depth; what a clock says is left out."""
    if isinstance(a, torch.Tensor):
        assert torch.equal(a, b)
    elif isinstance(a, dict):
        assert a.keys() == b.keys()
        for key in a.keys() - TIMES:
            assert_same(a[key], b[key])
    elif isinstance(a, list | tuple):
        assert len(a) == len(b)
        for one, other in zip(a, b, strict=True):
            assert_same(one, other)
    else:
        assert a == b


@pytest.fixture(scope="module")
def uninterrupted() -> dict[tuple[str, bool], tuple[dict[str, Any], Any, dict[str, Any]]]:
    """(method, augmented) -> record, watch and last checkpoint of a training that nothing stopped, once for all."""
    return {}


@pytest.mark.parametrize(
    ("method", "stop", "augmented"),
    [
        *(("evolutionary", stop, True) for stop in STOPS),
        ("vanilla", "in epoch 2", True),
        ("vanilla", "after epoch 1", True),
        ("evolutionary", "in epoch 2", False),
    ],
)
@pytest.mark.slow
def test_resumed_equals_uninterrupted(
    method: str,
    stop: str,
    augmented: bool,
    train: Callable[..., Any],
    make_recipe: Callable[..., Any],
    watch: Callable[[], Any],
    read_checkpoint: Callable[[Path], Any],
    tmp_path: Path,
    uninterrupted: dict[tuple[str, bool], Any],
) -> None:
    make_stop, done = STOPS[stop]
    recipe = make_recipe(data={} if augmented else {"crop_padding": 0, "flip": False})
    name, rest = f"{method}-seed0/last.ckpt", watch()
    if (method, augmented) not in uninterrupted:
        whole = watch()
        expected = train(method, recipe, whole, out="whole")
        uninterrupted[method, augmented] = expected, whole, read_checkpoint(tmp_path / "whole" / name)
    expected, whole, one = uninterrupted[method, augmented]
    with pytest.raises(Interrupted):
        train(method, recipe, make_stop(), out="parts")
    record = train(method, recipe, rest, out="parts", resume=True)

    assert_same(record, expected)
    assert len(rest.lambdas) == 12 - done  # nothing is trained twice but the epoch that was broken off
    assert rest.lambdas == whole.lambdas[done:]
    assert rest.rates == whole.rates[done:]
    for (x, y), (other_x, other_y) in zip(whole.batches[done:], rest.batches, strict=True):
        assert torch.equal(x, other_x)
        assert torch.equal(y, other_y)

    other = read_checkpoint(tmp_path / "parts" / name)
    assert one["state_dict"]
    assert one["optimizer_states"][0]["state"]  # the momentum buffers
    for key in ("state_dict", "optimizer_states", "lr_schedulers", "global_step"):
        assert_same(one[key], other[key])


@pytest.mark.slow
def test_total_of_steps_is_in_the_checkpoint(
    train: Callable[..., Any], read_checkpoint: Callable[[Path], Any], tmp_path: Path
) -> None:
    with pytest.raises(Interrupted):
        train("evolutionary", None, StopAtStep(6))
    assert read_checkpoint(tmp_path / "run" / "evolutionary-seed0" / "last.ckpt")["record"]["total_steps"] == 12


@pytest.mark.slow
def test_another_recipe_is_not_resumed(train: Callable[..., Any], make_recipe: Callable[..., Any]) -> None:
    with pytest.raises(Interrupted):
        train("vanilla", make_recipe(), StopAtStep(6))
    with pytest.raises(UsageError, match="recipe"):
        train("vanilla", make_recipe(lr=0.2), resume=True)


@pytest.mark.slow
def test_started_folder_is_not_overwritten(train: Callable[..., Any], tmp_path: Path) -> None:
    with pytest.raises(Interrupted):
        train("vanilla", None, StopAtStep(6))
    files = lambda: {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.is_file()}
    before = files()
    with pytest.raises(UsageError, match="add resume=True"):
        train("vanilla")
    assert files() == before  # a lock has come and gone
