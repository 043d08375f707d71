"""The gradient figures of a diagnosis are those of an independent computation; test_layers.py has the neurons'."""

import copy
import math
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
import torch

import spikeback as sb

from .cases import (
    Account,
    Chain,
    K,
    account,
    block_names,
    found_blocks,
    mean_cross_entropy,
    short,
    smooth_images,
    some_labels,
)

MakeNet = Callable[..., Any]
EXACT = 1e-5  # float64 nets, norms taken in float32 at worst


def assert_gradients(figures: dict[str, Any], truth: Account, gains_of: list[str]) -> None:
    for name, gradient in truth.gradients.items():
        block = figures[name]
        assert block["gradient"] == pytest.approx(gradient.norm().item(), rel=EXACT)
        by_step = gradient.flatten(1).norm(dim=1).tolist()
        assert block["gradient_by_step"] == pytest.approx(by_step, rel=EXACT, abs=EXACT * max(by_step))
    for name in gains_of:
        entering = truth.entering[name]
        assert entering is not None
        assert figures[name]["gain"] == pytest.approx(
            (entering.norm() / truth.gradients[name].norm()).item(), rel=EXACT
        )


def test_two_blocks_by_hand() -> None:
    """Eq. 3 on paper, T = 2: two neurons in a row, tau = 1/2, V_th = 1/2, a triangle of height 1, weights 1 and 3/4.

    Membranes (1/4, 5/8) and (0, 3/4): each fires in the second step only.
    With q = sigmoid(-1) the readout sends -q back at every step.
    """
    net = Chain(1, 1, 1, steps=2).double()
    with torch.no_grad():
        for layer, value in ((net.first, 1.0), (net.second, 0.75)):
            layer.get_submodule("0").weight.fill_(value)  # pyright: ignore
        net.fc.weight.copy_(torch.tensor([[1.0], [-1.0]]))
        net.fc.bias.zero_()
    x = torch.tensor([[[0.25]], [[0.5]]], dtype=torch.float64)  # (T, B, F)
    found = sb.diagnose(net, x, torch.tensor([0]), blocks=["first", "second"], passes=(), lr=0.1).as_dict()
    q = 1 / (1 + math.e)
    first, second = found["blocks"]
    assert found["loss"] == pytest.approx(math.log(1 + math.exp(-1)), rel=1e-6)
    assert second["gradient_by_step"] == pytest.approx([q, q], rel=1e-6)
    assert second["gradient"] == pytest.approx(math.sqrt(2) * q, rel=1e-6)
    assert first["gradient_by_step"] == pytest.approx([3 * q / 16, 3 * q / 8], rel=1e-6)
    assert first["gradient"] == pytest.approx(3 * math.sqrt(5) / 16 * q, rel=1e-6)
    assert second["gain"] == pytest.approx(3 * math.sqrt(5) / 16 / math.sqrt(2), rel=1e-6)
    weights = {w["name"]: w for w in found["weights"]}
    for name, norm, gradient in (("first.0.weight", 1.0, 399 / 2048 * q), ("second.0.weight", 0.75, q / 2)):
        assert weights[name]["norm"] == pytest.approx(norm)
        assert weights[name]["gradient"] == pytest.approx(gradient, rel=1e-6)
        assert weights[name]["relative"] == pytest.approx(gradient / norm, rel=1e-6)
        assert weights[name]["update"] == pytest.approx(0.1 * gradient / norm, rel=1e-6)
    assert [b["rate"] for b in (first, second)] == pytest.approx([0.5, 0.5])
    assert [b["rate_by_step"] for b in (first, second)] == [[0.0, 1.0], [0.0, 1.0]]
    assert [b["derivative"] for b in (first, second)] == pytest.approx([(0.5 + 0.75) / 2, (0 + 0.5) / 2], rel=1e-6)
    assert [b["second_moment"] for b in (first, second)] == pytest.approx([(0.25 + 0.5625) / 2, 0.25 / 2], rel=1e-6)
    assert [b["active"] for b in (first, second)] == pytest.approx([1.0, 0.5])


@pytest.mark.parametrize("frames", [False, True], ids=["images", "frames"])
@pytest.mark.parametrize("name", ["spiking_resnet18", "spiking_vgg11"])
def test_gradients_and_gains_are_those_of_autograd(make_net: MakeNet, name: str, frames: bool) -> None:
    net = sb.create_model(name, num_classes=K, time_steps=2, width=4).double()
    x, y = smooth_images(8, dtype=torch.float64), some_labels(8)
    if frames:
        x = torch.stack([smooth_images(8, seed=t, dtype=torch.float64) for t in range(3)])  # (T, B, C, H, W)
    diagnosis = sb.diagnose(net, x, y, passes=())
    figures, names = found_blocks(diagnosis), block_names(net)
    truth = account(net, x, y, names)
    assert [name for name in figures if name in names] == names
    assert set(figures) - set(names) <= {"stem", "encoder"}
    assert_gradients(figures, truth, [n for n in names if n.startswith("layer") and "layers.0" not in n])
    found = diagnosis.as_dict()
    assert found["loss"] == pytest.approx(truth.loss, rel=EXACT)
    assert (found["batch_size"], found["time_steps"]) == (8, 3 if frames else 2)


def test_gain_telescopes_between_first_and_last_block(make_net: MakeNet) -> None:
    net, x, y = make_net().double(), smooth_images(8, dtype=torch.float64), some_labels(8)
    figures = found_blocks(sb.diagnose(net, x, y, passes=()))
    first, *rest = [figures[name] for name in block_names(net)]
    assert first["gradient"] / rest[-1]["gradient"] == pytest.approx(math.prod(b["gain"] for b in rest), rel=1e-4)


def test_a_layers_gain_counts(make_net: MakeNet) -> None:
    """A surrogate 1.5 times as high is a higher gradient, by the same independent account."""
    net, x, y = make_net().double(), smooth_images(8, dtype=torch.float64), some_labels(8)
    before = found_blocks(sb.diagnose(net, x, y, passes=()))
    for lif in [m for m in net.modules() if isinstance(m, sb.LIF)]:
        lif.gain.fill_(1.5)
    after = found_blocks(sb.diagnose(net, x, y, passes=()))
    assert_gradients(after, account(net, x, y, block_names(net)), block_names(net))
    for name in block_names(net)[:-1]:
        assert after[name]["gradient"] > 1.2 * before[name]["gradient"]
        assert after[name]["derivative"] == pytest.approx(1.5 * before[name]["derivative"], rel=1e-4)


def test_single_precision_agrees_too(make_net: MakeNet) -> None:
    net, x, y = make_net(neuron=sb.LIF(0.25, 0.5, sb.surrogate.ATan(2.0))), smooth_images(8), some_labels(8)
    figures = found_blocks(sb.diagnose(net, x, y, passes=()))
    with sb.nn.plain():
        truth = account(net, x, y, block_names(net))
    for name, gradient in truth.gradients.items():
        assert figures[name]["gradient"] == pytest.approx(gradient.norm().item(), rel=1e-3)


def test_net_in_eval_mode(make_net: MakeNet, live_net: Any) -> None:
    """Of a net in eval mode the figures are those of one of its two modes, and the mode stays."""
    net, x, y = live_net.double(), smooth_images(8, dtype=torch.float64), some_labels(8)
    figures, names = found_blocks(sb.diagnose(net, x, y, passes=())), block_names(net)
    assert not any(m.training for m in net.modules())
    own = account(net, x, y, names)
    training = account(copy.deepcopy(net).train(), x, y, names)
    seen = [figures[name]["gradient"] for name in names]
    either = [[t.gradients[name].norm().item() for name in names] for t in (own, training)]
    assert any(seen == pytest.approx(truth, rel=EXACT) for truth in either)


@pytest.mark.parametrize("weight", [0.0, 0.25])
@pytest.mark.parametrize("taps", ["stage", "block"])
@pytest.mark.slow
def test_shortcut_net(make_net: MakeNet, taps: Any, weight: float) -> None:
    model = sb.ShortcutNet(make_net(), taps=taps).double()
    x, y, names = smooth_images(8, dtype=torch.float64), some_labels(8), block_names(model.net)
    diagnosis = sb.diagnose(model, x, y, weight=weight, passes=())
    figures = found_blocks(diagnosis)
    truth = account(model, x, y, [f"net.{name}" for name in names], weight=weight)
    truth.gradients = {short(name): g for name, g in truth.gradients.items()}
    truth.entering = {short(name): g for name, g in truth.entering.items()}
    assert [name for name in figures if name in names] == names
    # where a branch reads a block's input, "dL/d input" may or may not count what it supplies: there only the norms
    same_stage = lambda a, b: a.partition(".")[0] == b.partition(".")[0]
    untapped = [b for a, b in pairwise(names) if weight == 0 or (taps == "stage" and same_stage(a, b))]
    assert_gradients(figures, truth, untapped)
    assert diagnosis.as_dict()["loss"] == pytest.approx(truth.loss, rel=EXACT)


def test_weights(make_net: MakeNet) -> None:
    net, x, y = make_net().double(), smooth_images(8, dtype=torch.float64), some_labels(8)
    found = sb.diagnose(net, x, y, passes=(), lr=0.3).as_dict()
    truth = account(net, x, y, block_names(net))
    weights = {w["name"]: w for w in found["weights"]}
    assert found["lr"] == 0.3
    matrices = [name for name, p in net.named_parameters() if p.ndim > 1]
    assert [name for name in weights if name in matrices] == matrices
    for name, entry in weights.items():
        p, gradient = net.get_parameter(name), truth.parameters[name].norm().item()
        assert entry["norm"] == pytest.approx(p.norm().item(), rel=EXACT)
        assert entry["gradient"] == pytest.approx(gradient, rel=EXACT)
        if p.norm() > 0:
            assert entry["relative"] == pytest.approx(gradient / p.norm().item(), rel=EXACT)
            assert entry["update"] == pytest.approx(0.3 * gradient / p.norm().item(), rel=EXACT)
    assert weights["layer2.0.conv1.0.weight"]["block"] == "layer2.0"
    assert weights["fc.weight"]["block"] is None


def test_a_loss_of_ones_own(make_net: MakeNet) -> None:
    """Of the logits (T, B, K) and the labels."""
    net, x, y = make_net().double(), smooth_images(8, dtype=torch.float64), some_labels(8)
    loss = lambda logits, labels: 3 * mean_cross_entropy(logits, labels) + logits.square().mean()
    figures = found_blocks(sb.diagnose(net, x, y, loss=loss, passes=()))
    assert_gradients(figures, account(net, x, y, block_names(net), loss=loss), block_names(net))


def test_plain_module_without_feature_info() -> None:
    net, x, y = (
        Chain(6, 8, 8, classes=3, steps=3).double(),
        torch.rand(16, 6, dtype=torch.float64) * 2,
        some_labels(16, 3),
    )
    found = sb.diagnose(net, x, y).as_dict()
    names, modules = [b["name"] for b in found["blocks"]], dict(net.named_modules())
    assert len(names) >= 2
    assert set(names) <= set(modules)
    assert names == sorted(names, key=list(modules).index)
    assert [layer["name"] for layer in found["layers"]] == ["first.1", "second.1"]
    truth = account(net, x, y, names)
    for block in found["blocks"]:
        assert block["gradient"] == pytest.approx(truth.gradients[block["name"]].norm().item(), rel=EXACT)


def test_named_blocks_are_the_blocks(make_net: MakeNet) -> None:
    net, x, y = make_net().double(), smooth_images(8, dtype=torch.float64), some_labels(8)
    stages = ["layer1", "layer2", "layer3", "layer4"]
    figures = found_blocks(sb.diagnose(net, x, y, blocks=stages, passes=()))
    assert list(figures) == stages
    assert_gradients(figures, account(net, x, y, stages), stages)
