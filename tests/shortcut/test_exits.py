"""Branches at inference: what an exit costs, and who leaves where."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

import spikeback as sb
from spikeback.lab.exits.early import (
    THRESHOLDS,
    Exit,
    Outcome,
    cheapest,
    early_exit,
    exits_of,
    judge,
    shares_alone,
    shares_early,
)

SHARES = [0.25, 0.75, 1.25]
# Three exits, four samples; confidences are powers of two, so every number is exact.
HAND = Outcome(
    confidence=torch.tensor([[0.75, 0.5, 0.25, 0.25], [1.0, 0.75, 0.5, 0.25], [0.5, 0.5, 0.5, 0.25]]),
    right=torch.tensor([[True, False, False, False], [True, True, False, False], [False, True, True, True]]),
    sums={},
)


@pytest.mark.parametrize(
    ("threshold", "accuracy", "macs", "leaving"),
    [
        (0.0, 1 / 4, 0.25, [1, 0, 0]),  # everybody leaves at the first exit
        (0.25, 2 / 4, (0.25 + 0.25 + 0.75 + 1.25) / 4, [0.5, 0.25, 0.25]),
        (0.5, 4 / 4, (0.25 + 0.75 + 1.25 + 1.25) / 4, [0.25, 0.25, 0.5]),
        (0.75, 4 / 4, (0.75 + 3 * 1.25) / 4, [0, 0.25, 0.75]),
        (1.0, 3 / 4, 1.25, [0, 0, 1]),  # nobody before the main branch
        (2.0, 3 / 4, 1.25, [0, 0, 1]),
    ],
)
def test_each_sample_leaves_at_the_first_confident_exit(
    threshold: float, accuracy: float, macs: float, leaving: list[float]
) -> None:
    curve = early_exit(HAND, SHARES, [threshold])
    assert curve == {"accuracy": [accuracy], "macs": [macs], "leaving": [leaving]}


def test_the_ends_of_the_thresholds_are_the_first_exit_and_the_main_branch() -> None:
    curve = early_exit(HAND, SHARES)
    assert list(THRESHOLDS) == sorted(set(THRESHOLDS))
    assert (curve["accuracy"][0], curve["macs"][0]) == (HAND.accuracy[0], SHARES[0])
    assert (curve["accuracy"][-1], curve["macs"][-1]) == (HAND.accuracy[-1], SHARES[-1])
    assert curve["macs"] == sorted(curve["macs"])


def test_the_cheapest_threshold_that_is_accurate_enough() -> None:
    curve = early_exit(HAND, SHARES, [0.0, 0.25, 0.5, 0.75, 1.0])
    assert [cheapest(curve, accuracy) for accuracy in (0.0, 0.26, 0.75, 1.0)] == [0, 1, 2, 2]
    assert cheapest(curve, 1.1) == 4  # none is: nobody leaves early
    assert cheapest({"macs": [0.5, 0.5], "accuracy": [0.7, 0.8]}, 0.6) == 1


def test_shares_of_an_exit_alone_and_of_one_after_others() -> None:
    exits = [Exit("a", 10, 2), Exit("b", 50, 4), Exit("main", 100)]
    assert shares_alone(exits) == [0.12, 0.54, 1.0]
    assert shares_early(exits) == [0.12, 0.56, 1.06]


@pytest.mark.parametrize(
    ("taps", "read"), [("stage", "spikes"), ("block", "current"), (("layer3.0", "layer1"), "spikes")]
)
def test_macs_of_exits_add_up_to_those_of_the_network(make_net: Callable[..., Any], taps: Any, read: Any) -> None:
    net = make_net()
    x = torch.zeros(1, 3, 8, 8)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        net.eval()(x, per_step=False)
    model = sb.ShortcutNet(net, taps=taps, read=read).eval()
    *side, main = exits_of(model, x)
    assert main == Exit("main", counter.get_total_flops() // 2)
    assert sorted(e.name for e in side) == sorted(model.taps)
    trunk = [e.trunk for e in side]
    assert trunk == sorted(set(trunk))
    assert 0 < trunk[0] < trunk[-1] < main.trunk
    widths = {"layer1": 4, "layer2": 8, "layer3": 16, "layer4": 32}
    assert all(e.branch == 5 * widths[e.name.partition(".")[0]] for e in side)
    for shares in (shares_alone([*side, main]), shares_early([*side, main])):
        assert shares == sorted(shares)
    assert shares_early([*side, main])[-1] == 1 + sum(e.branch for e in side) / main.trunk
    assert not any(m._forward_hooks for m in model.modules())


def test_macs_up_to_the_first_stage_by_hand(make_net: Callable[..., Any]) -> None:
    first = exits_of(sb.ShortcutNet(make_net()), torch.zeros(1, 3, 8, 8))[0]
    stem, layer1 = 8 * 8 * 4 * 3 * 9, 2 * 4 * 8 * 8 * 4 * 4 * 9  # the stem sees an image once, T = 2, two blocks
    assert first == Exit("layer1", stem + layer1, 4 * 5)


def test_exits_are_judged_by_their_own_logits(live_net: Any, images: Tensor) -> None:
    model = sb.ShortcutNet(live_net).eval()
    y = torch.tensor([0, 1, 2])
    order = [*model.taps, "main"]
    with torch.no_grad():
        found = judge(model, [(images[:2], y[:2]), (images[2:], y[2:])], order, (0.0, 0.25))
        main, side = model.logits(images, per_step=False)
    for i, z in enumerate((*side.values(), main)):
        torch.testing.assert_close(found.confidence[i], z[0].softmax(1).amax(1))
        assert found.right[i].tolist() == (z[0].argmax(1) == y).tolist()
    assert found.sums[0.0] == found.accuracy[-1]
    summed = (main + 0.25 * sum(side.values()))[0]
    assert found.sums[0.25] == (summed.argmax(1) == y).double().mean().item()
