"""All arms of a comparison differ in the weight of the branches and in nothing else."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from spikeback.data import DataModule

pytestmark = pytest.mark.slow


def trunk(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {k.removeprefix("net."): v for k, v in weights.items() if k.startswith("net.")}


@pytest.fixture(scope="module")
def known() -> dict[tuple[str, int], Any]:
    return {}


@pytest.fixture
def watched(
    known: dict[tuple[str, int], Any], train: Callable[..., Any], watch: Callable[[], Any]
) -> Callable[..., Any]:
    """watched("vanilla", seed=0): what was seen of a training of the plain recipe, which happens once for all tests."""

    def training(method: str, seed: int = 0) -> Any:
        if (method, seed) not in known:
            seen = watch()
            train(method, None, seen, out=f"{method}-{seed}", seed=seed)
            known[method, seed] = seen
        return known[method, seed]

    return training


def test_arms_share_initial_weights_batches_and_learning_rate(
    watched: Callable[..., Any],
) -> None:
    arms = {method: watched(method) for method in ("vanilla", "shortcut", "evolutionary")}
    vanilla = arms.pop("vanilla")
    for seen in arms.values():
        initial, expected = trunk(seen.weights[0]), trunk(vanilla.weights[0])
        assert initial.keys() == expected.keys()
        assert all(torch.equal(initial[k], v) for k, v in expected.items())
        assert not torch.equal(seen.weights[-1]["net.fc.weight"], vanilla.weights[-1]["net.fc.weight"])
        assert seen.rates == vanilla.rates
        assert len(seen.batches) == len(vanilla.batches) == 12
        for (x, y), (other_x, other_y) in zip(seen.batches, vanilla.batches, strict=True):  # augmented as well
            assert torch.equal(x, other_x)
            assert torch.equal(y, other_y)


def test_seeds_differ_in_initial_weights_and_batches(watched: Callable[..., Any]) -> None:
    one, other = watched("vanilla"), watched("vanilla", seed=1)
    assert not torch.equal(one.weights[0]["net.fc.weight"], other.weights[0]["net.fc.weight"])
    assert not torch.equal(one.batches[0][1], other.batches[0][1])


@pytest.mark.parametrize("method", ["vanilla", "Evolutionary(start=0.0)"])
def test_weight_zero_is_a_plain_pytorch_loop(
    method: str,
    watched: Callable[..., Any],
    make_recipe: Callable[..., Any],
    plain_net: Callable[..., Any],
) -> None:
    recipe, seen = make_recipe(), watched(method)

    net = plain_net(recipe)
    net.load_state_dict(trunk(seen.weights[0]))
    net.train()
    decayed = [p for p in net.parameters() if p.ndim > 1]
    others = [p for p in net.parameters() if p.ndim <= 1]
    optimiser = torch.optim.SGD(
        [{"params": decayed, "weight_decay": 1e-4}, {"params": others, "weight_decay": 0.0}], lr=0.1, momentum=0.9
    )
    data = DataModule(recipe.data, seed=0)
    data.setup()
    for step, (x, y) in zip(range(3), data.train_dataloader(), strict=False):
        for group in optimiser.param_groups:
            group["lr"] = 0.1 * 0.5 * (1 + math.cos(math.pi * step / 12))
        optimiser.zero_grad()
        F.cross_entropy(net(x, per_step=False).mean(0), y).backward()
        optimiser.step()
        after = trunk(seen.weights[step + 1])
        assert all(torch.equal(after[k], v) for k, v in net.state_dict().items())


def test_packed_spikes_change_no_weight(
    train: Callable[..., Any], make_recipe: Callable[..., Any], watch: Callable[[], Any], watched: Callable[..., Any]
) -> None:
    plain, packed = watched("evolutionary"), watch()
    train("evolutionary", make_recipe(packed_spikes=True), packed, out="packed")
    assert len(plain.weights) == len(packed.weights) == 13
    for one, other in zip(plain.weights, packed.weights, strict=True):
        assert all(torch.equal(other[key], value) for key, value in one.items())
