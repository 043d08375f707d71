"""The two losses, against arithmetic written out here."""

import pytest
import torch
import torch.nn.functional as F

import spikeback as sb
from spikeback.train import branch_loss, mean_cross_entropy


@pytest.fixture
def model(make_net) -> sb.ShortcutNet:
    return sb.ShortcutNet(make_net(), taps="stage")


def test_loss_is_the_cross_entropy_of_the_time_mean() -> None:
    logits = torch.tensor([[[0.0, 1.0]], [[0.0, 3.0]]])  # (T, B, K): the mean over time is (0, 2)
    expected = torch.log(1 + torch.exp(torch.tensor(2.0)))  # -log(1 / (1 + e^2))
    torch.testing.assert_close(mean_cross_entropy(logits, torch.tensor([0])), expected, rtol=0, atol=1e-6)


def test_summed_logits_are_one_cross_entropy(model: sb.ShortcutNet, pictures: torch.Tensor) -> None:
    y = torch.tensor([0, 3, 4])
    loss, judged = branch_loss(model, pictures, y, 0.5, "logits")
    main, side = model.logits(pictures, per_step=False)
    summed = main + 0.5 * sum(side.values())
    assert torch.equal(judged, summed)
    assert torch.equal(loss, F.cross_entropy(summed.mean(0), y))


def test_summed_losses_judge_every_branch_by_itself(model: sb.ShortcutNet, pictures: torch.Tensor) -> None:
    y = torch.tensor([0, 3, 4])
    loss, judged = branch_loss(model, pictures, y, 0.5, "losses")
    main, side = model.logits(pictures, per_step=False)
    assert len(side) == len(model.taps) > 1
    expected = F.cross_entropy(main.mean(0), y) + 0.5 * sum(F.cross_entropy(z.mean(0), y) for z in side.values())
    assert torch.equal(loss, torch.as_tensor(expected))
    assert torch.equal(judged, main)


@pytest.mark.parametrize("combine", ["logits", "losses"])
def test_weight_zero_is_the_main_branch_alone(combine, model: sb.ShortcutNet, pictures: torch.Tensor) -> None:
    y = torch.tensor([0, 3, 4])
    loss, judged = branch_loss(model, pictures, y, 0.0, combine)
    main = model.net(pictures, per_step=False)
    assert torch.equal(judged, main)
    assert torch.equal(loss, F.cross_entropy(main.mean(0), y))
