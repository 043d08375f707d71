"""The losses, against arithmetic written out here."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import spikeback as sb
from spikeback.errors import UsageError
from spikeback.losses import CrossEntropy, DeepSupervision, Loss
from spikeback.losses.cross_entropy import mean_cross_entropy
from spikeback.train import Recipe
from spikeback.train.recipe import BranchConfig, TrainConfig
from spikeback.train.results import differing
from spikeback.values import from_text

Y = torch.tensor([0, 3, 4])
LOSSES: list[Loss] = [CrossEntropy(), DeepSupervision()]


@pytest.fixture
def model(make_net: Any) -> sb.ShortcutNet:
    return sb.ShortcutNet(make_net(), taps="stage")


def test_loss_is_the_cross_entropy_of_the_time_mean() -> None:
    logits = torch.tensor([[[0.0, 1.0]], [[0.0, 3.0]]])  # (T, B, K): the mean over time is (0, 2)
    expected = torch.log(1 + torch.exp(torch.tensor(2.0)))  # -log(1 / (1 + e^2))
    torch.testing.assert_close(mean_cross_entropy(logits, torch.tensor([0])), expected, rtol=0, atol=1e-6)


def test_summed_logits_are_one_cross_entropy(model: sb.ShortcutNet, images: Tensor) -> None:
    main, side = model.heads(images, 0.5, per_step=False)
    summed = main + 0.5 * sum(side.values())
    assert torch.equal(CrossEntropy().judged(main, side, 0.5), summed)
    assert torch.equal(model(images, 0.5, per_step=False), summed)
    assert torch.equal(CrossEntropy()(main, side, 0.5, Y), F.cross_entropy(summed.mean(0), Y))


def test_summed_losses_judge_every_branch_by_itself(model: sb.ShortcutNet, images: Tensor) -> None:
    main, side = model.heads(images, 0.5, per_step=False)
    assert len(side) == len(model.taps) > 1
    expected = F.cross_entropy(main.mean(0), Y) + 0.5 * sum(F.cross_entropy(z.mean(0), Y) for z in side.values())
    assert torch.equal(DeepSupervision()(main, side, 0.5, Y), torch.as_tensor(expected))
    assert torch.equal(DeepSupervision().judged(main, side, 0.5), main)


@pytest.mark.parametrize("loss", LOSSES)
def test_weight_zero_is_the_main_branch_alone(loss: Loss, model: sb.ShortcutNet, images: Tensor) -> None:
    main, side = model.heads(images, 0.0, per_step=False)
    assert side == {}
    assert torch.equal(main, model.net(images, per_step=False))
    assert torch.equal(loss.judged(main, side, 0.0), main)
    assert torch.equal(loss(main, side, 0.0, Y), F.cross_entropy(main.mean(0), Y))


@pytest.mark.parametrize("kind", [CrossEntropy, DeepSupervision])
def test_label_smoothing_is_pytorchs(kind: Any) -> None:
    torch.manual_seed(0)
    main, z = torch.randn(2, 2, 3, 5)
    smooth = lambda logits: F.cross_entropy(logits.mean(0), Y, label_smoothing=0.1)
    expected = smooth(main + 0.5 * z) if kind is CrossEntropy else smooth(main) + 0.5 * smooth(z)
    assert torch.equal(kind(label_smoothing=0.1)(main, {"tap": z}, 0.5, Y), expected)
    with pytest.raises(UsageError, match=r"label_smoothing must lie in \[0, 1\), got 1"):
        kind(label_smoothing=1.0)


def test_the_former_option_means_the_same() -> None:
    """Recipes and results that were written with branches.combine are read, and are those of today."""
    assert [
        from_text(Recipe(branches=BranchConfig(combine=name)).train.loss, Loss) for name in ("logits", "losses")
    ] == LOSSES
    new = Recipe(train=TrainConfig(loss="DeepSupervision")).as_dict()
    old = Recipe().as_dict()
    del old["train"]["loss"]
    old["branches"]["combine"] = "losses"
    assert Recipe.from_dict(old).as_dict() == new
    assert differing(old, new) == []
    assert differing(old, Recipe().as_dict()) == ["train.loss"]
    with pytest.raises(UsageError, match=r"give train\.loss alone"):
        Recipe(branches=BranchConfig(combine="logits"), train=TrainConfig(loss="DeepSupervision()"))


@pytest.mark.parametrize("loss", LOSSES)
def test_the_doctor_judges_by_the_same_loss(loss: Loss, model: sb.ShortcutNet, images: Tensor) -> None:
    found = sb.diagnose(model, images, Y, weight=0.5, loss=loss, passes=("descent",))
    model.train()
    value = loss(*model.heads(images, 0.5), 0.5, Y).item()
    assert found.facts["loss"] == pytest.approx(value, rel=1e-6)
