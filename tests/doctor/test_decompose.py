"""Eq. 9: what the main path and each branch supply adds up to the whole gradient of every block."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

import spikeback as sb
from spikeback.doctor import decompose
from spikeback.losses import CrossEntropy, DeepSupervision, Loss

from .cases import assert_same, block_names, mean_cross_entropy, short, smooth_images, snapshot, some_labels

MakeNet = Callable[..., Any]
Parts = dict[str, dict[str, dict[str, float]]]
EXACT = 1e-5
LOSSES: list[Loss] = [CrossEntropy(), DeepSupervision()]


@pytest.fixture
def given(make_net: MakeNet) -> tuple[sb.ShortcutNet, Tensor, Tensor]:
    model = sb.ShortcutNet(make_net(), taps="stage").double()
    return model, smooth_images(8, dtype=torch.float64), some_labels(8)


def parts_of(model: sb.ShortcutNet, *args: Any, **options: Any) -> Parts:
    return {short(block): parts for block, parts in decompose(model, *args, **options).items()}


def by_hand(model: sb.ShortcutNet, x: Tensor, y: Tensor, weight: float, loss: Loss) -> dict[str, dict[str, Tensor]]:
    """dL/d(block output) through one source at a time: the others' logits are cut off from the graph."""
    blocks, result = block_names(model.net), {}
    for source in ("main", *model.taps):
        twin, outs = copy.deepcopy(model), {}
        for block in blocks:
            keep = lambda _, __, output, block=block, outs=outs: outs.update({block: output})
            twin.net.get_submodule(block).register_forward_hook(keep)
        main, side = twin.logits(x)
        main = main if source == "main" else main.detach()
        side = {tap: z if source == tap else z.detach() for tap, z in side.items()}
        if loss.summed:
            value = mean_cross_entropy(main + weight * sum(side.values()), y)
        else:
            value = mean_cross_entropy(main, y) + weight * sum(mean_cross_entropy(z, y) for z in side.values())
        grads = torch.autograd.grad(value, [outs[b] for b in blocks], allow_unused=True)
        result[source] = {
            block: torch.zeros_like(outs[block]) if g is None else g for block, g in zip(blocks, grads, strict=True)
        }
    return {block: {source: result[source][block] for source in result} for block in blocks}


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("taps", ["stage", "block", ("layer1.1", "layer3")])
@pytest.mark.parametrize("weight", [0.25, 1.0])
def test_parts_are_those_of_autograd(make_net: MakeNet, loss: Loss, taps: Any, weight: float) -> None:
    model = sb.ShortcutNet(make_net(), taps=taps).double()
    x, y = smooth_images(8, dtype=torch.float64), some_labels(8)
    parts, truth = parts_of(model, x, y, weight, loss=loss), by_hand(model, x, y, weight, loss)
    assert [name for name in parts if name in truth] == list(truth)
    for block, sources in truth.items():
        total = torch.stack(list(sources.values())).sum(0)
        assert list(parts[block]) == ["main", *model.taps]
        for source, gradient in sources.items():
            share = ((gradient * total).sum() / total.square().sum()).item()
            assert parts[block][source]["norm"] == pytest.approx(gradient.norm().item(), rel=EXACT, abs=1e-12)
            assert parts[block][source]["share"] == pytest.approx(share, rel=EXACT, abs=EXACT)


@pytest.mark.parametrize("loss", LOSSES)
def test_shares_sum_to_one(given: tuple[sb.ShortcutNet, Tensor, Tensor], loss: Loss) -> None:
    model, x, y = given
    for sources in parts_of(model, x, y, 0.25, loss=loss).values():
        assert sum(part["share"] for part in sources.values()) == pytest.approx(1.0, abs=1e-4)


def test_the_whole_is_the_gradient_of_a_diagnosis(given: tuple[sb.ShortcutNet, Tensor, Tensor]) -> None:
    model, x, y = given
    parts = parts_of(model, x, y, 0.25)
    diagnosis = sb.diagnose(model, x, y, weight=0.25, passes=()).as_dict()
    for block in diagnosis["blocks"]:
        if short(block["name"]) in parts:
            sources = parts[short(block["name"])].values()
            # <g_s, g> = share ||g||^2 <= ||g_s|| ||g||
            assert all(abs(p["share"]) * block["gradient"] <= p["norm"] * (1 + EXACT) + 1e-12 for p in sources)
    last = parts["layer4.1"]
    assert last["main"]["norm"] == pytest.approx(diagnosis["blocks"][-1]["gradient"], rel=EXACT)


def test_weight_zero_leaves_the_main_path_only(given: tuple[sb.ShortcutNet, Tensor, Tensor]) -> None:
    model, x, y = given
    for loss in LOSSES:
        for sources in parts_of(model, x, y, 0.0, loss=loss).values():
            assert sources["main"]["share"] == pytest.approx(1.0)
            assert sources["main"]["norm"] > 0
            assert all(p["norm"] == p["share"] == 0 for source, p in sources.items() if source != "main")


def test_a_block_after_a_tap_gets_nothing_from_it(given: tuple[sb.ShortcutNet, Tensor, Tensor]) -> None:
    model, x, y = given
    parts, names = parts_of(model, x, y, 0.25), block_names(model.net)
    for tap in model.taps:
        for name in names:
            reached = name.partition(".")[0] <= tap
            assert (parts[name][tap]["norm"] > 0) is reached
            if not reached:
                assert parts[name][tap]["norm"] == parts[name][tap]["share"] == 0


@pytest.mark.parametrize("training", [True, False])
def test_nothing_is_changed(make_net: MakeNet, training: bool) -> None:
    model = sb.ShortcutNet(make_net(), taps="block").train(training)
    x, y = smooth_images(8), some_labels(8)
    before = snapshot(model, x, y)
    decompose(model, x, y, 0.25)
    assert_same(before, snapshot(model, x, y))


def test_nothing_is_changed_by_a_failure(make_net: MakeNet) -> None:
    model = sb.ShortcutNet(make_net(), taps="block")

    def give_up(*_: Any) -> None:
        raise RuntimeError("the roof caved in")

    model.branches["layer4/0"].register_forward_hook(give_up)
    before = snapshot(model)
    with pytest.raises(RuntimeError, match="the roof caved in"):
        decompose(model, smooth_images(8), some_labels(8), 0.25)
    assert_same(before, snapshot(model))
