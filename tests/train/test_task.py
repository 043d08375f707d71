"""What one training does at each step: lambda, learning rate, decay."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from lightning.pytorch.callbacks import Callback


@pytest.mark.slow
def test_evolutionary_weight_falls_with_every_step(train: Callable[..., Any], watch: Callable[[], Any]) -> None:
    seen = watch()
    record = train("evolutionary", None, seen)
    assert seen.lambdas[0] == 0.25
    assert seen.lambdas == [0.25 * (1 - i / 12) for i in range(12)]
    assert record["history"]["weight"] == [seen.lambdas[3], seen.lambdas[7], seen.lambdas[11]]
    assert seen.task.weight(12) == 0.0


@pytest.mark.slow
def test_weight_by_epoch_is_constant_within_an_epoch(
    train: Callable[..., Any], make_recipe: Callable[..., Any], watch: Callable[[], Any]
) -> None:
    seen = watch()
    train("evolutionary", make_recipe(branches={"schedule_by": "epoch"}), seen)
    assert seen.lambdas == [0.25 * (1 - epoch / 3) for epoch in range(3) for _ in range(4)]


@pytest.mark.slow
def test_shortcut_weight_stays_one(train: Callable[..., Any], watch: Callable[[], Any]) -> None:
    seen = watch()
    train("shortcut", None, seen)
    assert seen.lambdas == [1.0] * 12


@pytest.mark.slow
def test_learning_rate_is_a_cosine_to_zero(train: Callable[..., Any], watch: Callable[[], Any]) -> None:
    seen = watch()
    train("vanilla", None, seen)
    assert seen.rates == [0.1 * (0.5 * (1 + math.cos(math.pi * i / 12))) for i in range(12)]
    assert [group["lr"] for group in seen.groups] == [0.0] * len(seen.groups)


@pytest.mark.slow
def test_only_weights_decay(
    train: Callable[..., Any], make_recipe: Callable[..., Any], watch: Callable[[], Any]
) -> None:
    seen = watch()
    train("shortcut", make_recipe(weight_decay=5e-4, epochs=1), seen)
    decay = {id(p): group["weight_decay"] for group in seen.groups for p in group["params"]}
    parameters = list(seen.task.model.parameters())
    assert len(decay) == len(parameters)
    assert all(decay[id(p)] == (5e-4 if p.ndim > 1 else 0.0) for p in parameters)


@pytest.mark.slow
def test_adam_is_adamw_with_the_same_cosine(
    train: Callable[..., Any], make_recipe: Callable[..., Any], watch: Callable[[], Any]
) -> None:
    seen = watch()
    train("vanilla", make_recipe(optimizer="adam", lr=0.003, momentum=0.8, weight_decay=0.5), seen)
    assert isinstance(seen.task.optimizers().optimizer, torch.optim.AdamW)
    assert {group["betas"] for group in seen.groups} == {(0.8, 0.999)}
    assert [group["weight_decay"] for group in seen.groups] == [0.5, 0.0]
    assert seen.rates == [0.003 * (0.5 * (1 + math.cos(math.pi * i / 12))) for i in range(12)]
    step = (seen.weights[1]["net.fc.bias"] - seen.weights[0]["net.fc.bias"]).abs()
    assert torch.allclose(step, torch.tensor(0.003), rtol=1e-3)  # Adam's first step is the learning rate


@pytest.mark.slow
def test_no_branch_learns_at_weight_zero(
    train: Callable[..., Any], make_recipe: Callable[..., Any], watch: Callable[[], Any]
) -> None:
    seen = watch()
    train("vanilla", make_recipe(weight_decay=0.0, epochs=1), seen)
    branches = [k for k in seen.weights[0] if k.startswith("branches.")]
    assert branches
    assert all(torch.equal(seen.weights[0][k], seen.weights[-1][k]) for k in branches)


@pytest.mark.slow
def test_random_state_of_an_epoch_is_that_of_its_seed_and_number(
    train: Callable[..., Any], make_recipe: Callable[..., Any]
) -> None:
    class Draw(Callback):
        """What chance within a network, such as dropout, would draw first in each epoch."""

        def on_train_batch_start(self, *args: Any) -> None:
            if args[-1] == 0:
                with torch.random.fork_rng(devices=[]):
                    drawn.append(torch.rand(()).item())

    drawn: list[float] = []
    for seed in (0, 1, 0):
        train("vanilla", make_recipe(epochs=2), Draw(), out=f"run{len(drawn)}", seed=seed)
    assert drawn[:2] == drawn[4:]
    assert len(set(drawn)) == 4
