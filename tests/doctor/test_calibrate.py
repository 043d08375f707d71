"""`sb.calibrate` brings every block's gain to 1 and touches nothing but what it says.

Gains are measured twice: by `sb.diagnose` and by hooks of this test, on images that were not used to calibrate.
"""

import copy
import json
from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import spikeback as sb
from spikeback.ops.surrogate import Surrogate

from .cases import Chain, account, assert_same, block_names, found_blocks, lifs, smooth_images, snapshot, some_labels

MakeNet = Callable[..., Any]
S = sb.surrogate
LOW, HIGH = 0.8, 1.25
EQ_4 = [S.Triangle(1.0), S.Rectangle(1.0), S.Tanh(3.0), S.Tanh(3.0, False)]
SIZE = 16


def wide_net(name: str = "spiking_resnet18", surrogate: Surrogate = EQ_4[0], threshold: float = 0.5) -> Any:
    return sb.create_model(name, time_steps=2, width=8, neuron=sb.LIF(0.25, threshold, surrogate))


def images(seed: int = 0, batch: int = 64) -> Tensor:
    return smooth_images(batch, size=SIZE, seed=seed)


def held_out_gains(net: Any, batch: int = 48) -> dict[str, float]:
    """Of every block, by the doctor; the same by hooks of our own to within rounding."""
    x, y, names = images(99, batch), some_labels(batch, 10, 99), block_names(net)
    figures = found_blocks(sb.diagnose(net, x, y, passes=()))
    truth = account(net, x, y, names)
    for name in names:
        entering = truth.entering[name]
        assert entering is not None
        own = (entering.norm() / truth.gradients[name].norm()).item()
        assert figures[name]["gain"] == pytest.approx(own, rel=0.02)
    return {name: figures[name]["gain"] for name in names}


def assert_in_range(gains: Mapping[str, float | None]) -> None:
    assert {name: gain for name, gain in gains.items() if gain is None or not LOW <= gain <= HIGH} == {}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "surrogate", "threshold"),
    [
        ("spiking_resnet18", EQ_4[0], 0.5), ("spiking_resnet18", EQ_4[1], 1.0), ("spiking_resnet18", EQ_4[2], 0.5),
        ("spiking_resnet18", EQ_4[3], 1.0), ("spiking_resnet34", EQ_4[2], 1.0), ("spiking_resnet56_he", EQ_4[0], 0.5),
        ("spiking_resnet56_he", EQ_4[1], 1.0),
    ],
    ids=str,
)  # fmt: skip
def test_every_block_passes_the_gradient_on(name: str, surrogate: Surrogate, threshold: float) -> None:
    net = wide_net(name, surrogate, threshold)
    result = sb.calibrate(net, images(batch=48), some_labels(48, 10))
    assert_in_range(held_out_gains(net))
    assert_in_range({k: v for k, v in result.measured.items() if k in block_names(net)})
    for block in block_names(net):
        inner, outer = lifs(net.get_submodule(block))
        assert inner.gain == outer.gain
        assert result.gains[block] == pytest.approx(inner.gain.item(), rel=1e-5)


@pytest.mark.slow
def test_without_labels() -> None:
    net = wide_net()
    sb.calibrate(net, images())
    assert_in_range(held_out_gains(net))


@pytest.mark.parametrize("gain", [0.5, 2.0])
@pytest.mark.slow
def test_another_target(gain: float) -> None:
    net = wide_net()
    sb.calibrate(net, images(), some_labels(64, 10), gain=gain)
    assert_in_range({name: found / gain for name, found in held_out_gains(net).items()})


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.slow
def test_only_gains_are_changed(training: bool) -> None:
    net = wide_net().train(training)
    x = images()
    twin, before = copy.deepcopy(net), snapshot(net, x)
    sb.calibrate(net, x)
    after = snapshot(net, x)
    changed = {key for key in before if before[key] != after[key]}
    assert changed
    assert all("gain" in key or key.endswith(": loose") for key in changed), changed
    assert net.layer1[0].lif1.gain != 1
    others = [name for name in twin.state_dict() if not name.endswith("gain")]
    assert all(torch.equal(net.state_dict()[name], twin.state_dict()[name]) for name in others)
    for mode in (True, False):
        assert torch.equal(copy.deepcopy(net).train(mode)(x), copy.deepcopy(twin).train(mode)(x))


def test_gains_are_saved_with_the_net() -> None:
    net, fresh = wide_net(), wide_net()
    sb.calibrate(net, images())
    fresh.load_state_dict(net.state_dict())
    assert [lif.gain.item() for lif in lifs(fresh)] == [lif.gain.item() for lif in lifs(net)]


@pytest.mark.parametrize("surrogate", [S.Triangle(1.0), S.Rectangle(1.0), S.Tanh(3.0)], ids=str)
@pytest.mark.slow
def test_a_second_time_changes_little(surrogate: Surrogate) -> None:
    net = wide_net(surrogate=surrogate)
    sb.calibrate(net, images(), some_labels(64, 10))
    first = [lif.gain.item() for lif in lifs(net)]
    sb.calibrate(net, images(), some_labels(64, 10))
    assert [lif.gain.item() for lif in lifs(net)] == pytest.approx(first, rel=0.1)


@pytest.mark.parametrize("threshold", [0.5, 1.0])
@pytest.mark.slow
def test_width_instead_of_height(threshold: float) -> None:
    net = wide_net(surrogate=S.Rectangle(1.0), threshold=threshold)
    x, twin = images(), copy.deepcopy(net)
    sb.calibrate(net, x, some_labels(64, 10), width=True)
    assert all(lif.gain == 1 for lif in lifs(net))
    assert any(lif.surrogate != S.Rectangle(1.0) for lif in lifs(net))
    assert all(type(lif.surrogate) is S.Rectangle for lif in lifs(net))
    for block in block_names(net):
        inner, outer = lifs(net.get_submodule(block))
        assert inner.surrogate == outer.surrogate
    assert all(lif.surrogate == S.Rectangle(1.0) for lif in lifs(twin))
    assert torch.equal(net.train()(x), twin.train()(x))
    assert_in_range(held_out_gains(net))


def last_fidelity(net: Any, seed: int = 0) -> float:
    found = sb.diagnose(net, images(seed), some_labels(64, 10), passes=("fidelity",)).as_dict()
    return found["blocks"][-1]["fidelity"]


@pytest.mark.slow
def test_fidelity_is_reached_or_reported() -> None:
    net = wide_net()
    twin, sick = copy.deepcopy(net), last_fidelity(net)
    assert sick < 0.6
    result = sb.calibrate(net, images(), some_labels(64, 10), fidelity=0.7)
    assert result.norm_scale is not None
    assert 0 < result.norm_scale < 1
    assert last_fidelity(net, 99) > sick + 0.1
    assert result.fidelity is not None
    assert result.fidelity == pytest.approx(last_fidelity(net), abs=0.1)
    assert result.fidelity >= 0.6 or f"{result.fidelity:.1f}" in str(result)  # not reached: the table says how far
    assert_in_range(held_out_gains(net, 256))  # few membranes are active then: of 48 images gains differ by a third
    scaled = {f"{block}.conv2.1.weight" for block in block_names(net)}
    for name, value in net.state_dict().items():
        old = twin.state_dict()[name]
        if name in scaled:
            assert torch.allclose(value, old * result.norm_scale, rtol=1e-5)
        elif not name.endswith("gain"):
            assert torch.equal(value, old), name


@pytest.mark.slow
def test_fidelity_alone_leaves_the_gains() -> None:
    net = wide_net()
    result = sb.calibrate(net, images(), gain=None, fidelity=0.7)
    assert all(lif.gain == 1 for lif in lifs(net))
    assert result.norm_scale is not None
    assert last_fidelity(net) > 0.6


def test_what_it_returns() -> None:
    net = wide_net()
    names = block_names(net)
    result = sb.calibrate(net, images())
    found = result.as_dict()
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert set(found) >= {"gains", "measured", "norm_scale", "shares", "fidelity"}
    assert result.norm_scale is None
    assert result.fidelity is not None
    assert -1 <= result.fidelity <= 1
    for by_block in (result.gains, result.measured, result.shares):
        assert [name for name in by_block if name in names] == names
    assert all(0 < result.shares[name] < 1 for name in names)
    assert all(name in str(result) for name in names)


@pytest.mark.slow
def test_the_net_inside_a_shortcut_net() -> None:
    model = sb.ShortcutNet(wide_net())
    branches = copy.deepcopy(model.branches.state_dict())
    sb.calibrate(model, images())
    assert_in_range(held_out_gains(model.net))
    assert all(torch.equal(branches[key], value) for key, value in model.branches.state_dict().items())


def test_plain_module_without_norms() -> None:
    net = Chain(16, 64, 64, classes=10, steps=2, neuron=sb.LIF(0.25, 0.5, S.Triangle(1.0)))
    with torch.no_grad():
        for layer in (net.first[0], net.second[0]):
            assert isinstance(layer, nn.Linear)
            nn.init.normal_(layer.weight, std=0.2)
    x, y = torch.randn(128, 16), some_labels(128, 10)
    sb.calibrate(net, x, y, blocks=["first", "second"])
    other, labels = torch.randn(128, 16), some_labels(128, 10, 1)
    second = found_blocks(sb.diagnose(net, other, labels, blocks=["first", "second"], passes=()))["second"]
    assert LOW <= second["gain"] <= HIGH


def test_failure_leaves_the_gains_as_they_were() -> None:
    net = wide_net()
    calls = [0]

    def give_up(_module: nn.Module, _args: Any) -> None:
        calls[0] += 1
        if calls[0] == 3:
            raise RuntimeError("the roof caved in")

    net.layer3[0].lif1.register_forward_pre_hook(give_up)
    before = snapshot(net)
    with pytest.raises(RuntimeError, match="the roof caved in"):
        sb.calibrate(net, images())
    assert_same(before, snapshot(net))


@pytest.mark.slow
def test_norms_that_are_nearly_faithful_enough_are_left_alone_and_it_is_said() -> None:
    net = wide_net()
    before = copy.deepcopy(net.state_dict())
    torch.manual_seed(0)
    target = last_fidelity(net) / 0.98
    torch.manual_seed(0)
    result = sb.calibrate(net, images(), some_labels(64, 10), gain=None, fidelity=target)
    assert result.norm_scale == 1
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert result.fidelity is not None
    assert 0.9 * target < result.fidelity < target
    assert f"fidelity {target:g} was asked for, {result.fidelity:.3g} is reached" in result.note
    assert "95 % of" in (sb.calibrate.__doc__ or "")
    assert f"{result.fidelity:.3g}" in str(result)
