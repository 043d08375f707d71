"""A loss that is finite but absurd is no finished training; where nothing can be held out, the advice works."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from spikeback.errors import TrainingError, UsageError
from spikeback.train import Task
from spikeback.train.task import DIVERGED


@pytest.fixture
def absurd(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """absurd(factor, of=steps): the loss is that many times as large at these steps."""

    def make(factor: float, of: Callable[[int], bool] = lambda step: step > 0) -> None:
        loss = Task.loss

        def scaled(self: Task, x: Any, y: Any, step: int) -> Any:
            value, logits = loss(self, x, y, step)
            return value * (factor if of(step) else 1.0), logits

        monkeypatch.setattr(Task, "loss", scaled)

    return make


@pytest.mark.slow
def test_a_finite_but_absurd_loss_is_an_error_that_says_so(
    train: Any, make_recipe: Any, absurd: Any, tmp_path: Path
) -> None:
    absurd(1e26)
    with pytest.raises(
        TrainingError, match=r"diverged: its loss is \d\.\de\+\d\d in epoch 1, more than 10 times"
    ) as error:
        train("vanilla", make_recipe(epochs=1, lr=1e-30))
    assert "lower train.lr (1e-30), with another out=..." in str(error.value)  # it is 32-true already
    assert not (tmp_path / "run" / "vanilla-seed0" / "net.safetensors").exists()


@pytest.mark.parametrize(("factor", "ends"), [(0.9 * DIVERGED, True), (1.5 * DIVERGED, False)])
@pytest.mark.slow
def test_the_criterion_is_ten_times_the_loss_of_guessing(
    train: Any, make_recipe: Any, absurd: Any, factor: float, ends: bool
) -> None:
    absurd(factor)
    recipe = make_recipe(epochs=1, lr=1e-30)
    if ends:
        assert train("vanilla", recipe)["steps"] == 4
    else:
        with pytest.raises(TrainingError, match="diverged"):
            train("vanilla", recipe)


@pytest.mark.slow
def test_one_wild_step_is_forgiven_and_a_large_start_is_the_measure(train: Any, make_recipe: Any, absurd: Any) -> None:
    absurd(1e6, lambda step: step == 1)
    assert train("vanilla", make_recipe(epochs=1, lr=1e-30))["steps"] == 4
    absurd(1e6, lambda step: True)
    assert train("vanilla", make_recipe(epochs=1, lr=1e-30), out="large")["steps"] == 4


@pytest.mark.slow
def test_the_start_is_kept_over_a_resume(train: Any, make_recipe: Any, absurd: Any, watch: Any, tmp_path: Path) -> None:
    seen = watch()
    train("vanilla", make_recipe(epochs=1), seen)
    assert seen.task.first_loss == pytest.approx(math.log(10), abs=1)
    checkpoint: dict[str, Any] = {}
    seen.task.on_save_checkpoint(checkpoint)
    assert checkpoint["record"]["first_loss"] == seen.task.first_loss


def draw(root: Path, count: int) -> Path:
    for label in ("cats", "dogs"):
        (root / label).mkdir(parents=True)
        for i in range(count):
            pixels = np.random.default_rng(i).integers(0, 256, (8, 8), dtype=np.uint8)
            Image.fromarray(pixels).save(root / label / f"{i}.png")
    return root


@pytest.mark.slow
def test_classes_of_one_training_image_are_told_what_helps(train: Any, make_recipe: Any, tmp_path: Path) -> None:
    data = {"name": "folder", "root": str(draw(tmp_path / "two", 2)), "batch_size": 2, "limit": None}
    for held_out in (0.1, 0.9):
        with pytest.raises(UsageError, match=r"each class has one training image.*; add some, or .*best_on=test"):
            train("vanilla", make_recipe(data | {"held_out": held_out}, epochs=1))
    assert train("vanilla", make_recipe(data, epochs=1, best_on="test"))["epochs"] == 1
    data["root"] = str(draw(tmp_path / "three", 3))
    assert train("vanilla", make_recipe(data, epochs=1), out="more")["epochs"] == 1


@pytest.mark.slow
def test_nothing_held_out_by_choice_is_told_what_helps(train: Any, make_recipe: Any) -> None:
    with pytest.raises(UsageError, match=r"held_out=0 leaves nothing .* such as 0\.1, or .*train\.best_on=test"):
        train("vanilla", make_recipe({"held_out": 0.0}, epochs=1))
    assert train("vanilla", make_recipe({"held_out": 0.0}, epochs=1, best_on="test"))["epochs"] == 1
