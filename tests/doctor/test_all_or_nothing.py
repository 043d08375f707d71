"""Calibration and remedies do what they say, or change nothing and say what was reached."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import spikeback as sb
from spikeback.doctor import NotReached
from spikeback.doctor.measure.feeds import survey
from spikeback.errors import UsageError
from spikeback.train.recipe import TrainConfig
from spikeback.train.start import prepare

from .cases import Chain, assert_same, residual_net, smooth_images, snapshot, some_labels
from .peers import jelly, need

X, Y = smooth_images(24, 1), some_labels(24, 10)


def small_net(**options: Any) -> Any:
    return residual_net((1, 1), width=4, **options)


def norms_set(net: nn.Module, name: str, value: float) -> Any:
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.constant_(getattr(module, name), value)
    return net


def zero_convolutions(net: nn.Module) -> Any:
    for module in net.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.zeros_(module.weight)
    return net


# --- calibration


@pytest.mark.slow
def test_a_fidelity_out_of_reach_changes_nothing_and_its_advice_works(monkeypatch: pytest.MonkeyPatch) -> None:
    net = residual_net((2, 2), width=4)
    before = snapshot(net)
    with pytest.raises(NotReached, match=r"fidelity 0\.999 is reached at no scale .* nothing was changed") as error:
        sb.calibrate(net, X, Y, fidelity=0.999)
    assert_same(before, snapshot(net))
    monkeypatch.setattr("spikeback.train.start.AUTO", (sb.Fidelity(0.999),))
    found = prepare(net, X, Y, TrainConfig())  # auto: a line, and the training goes on
    assert found is not None
    assert (found.norm_scale, found.gains) == (None, {})
    assert found.note.startswith("train.calibrate=auto: fidelity 0.999 is reached at no scale")
    assert "\n" not in found.note
    with pytest.raises(UsageError, match=r"^train\.calibrate=\[.*\]: fidelity .*; train\.calibrate=none trains"):
        prepare(net, X, Y, TrainConfig(calibrate=["Gain(1.0)", "Fidelity(0.999)"]))
    assert_same(before, snapshot(net))
    assert prepare(net, X, Y, TrainConfig(calibrate="none")) is None
    less = float(str(error.value).split("fidelity=")[1].split(",")[0])
    assert 0.1 < less < 0.999
    norm_scale = sb.calibrate(net, X, Y, gain=None, fidelity=less).norm_scale
    assert norm_scale is not None
    assert sb.calibrate(small_net(), X, Y, gain=1.0).note == ""


def test_gains_that_were_not_reached_are_said() -> None:
    found = sb.calibrate(
        residual_net((2, 1), width=4, neuron=sb.LIF(0.25, 0.5, sb.surrogate.Triangle(0.01))), X, Y, batches=1
    )
    assert found.note.startswith("gain 1 was not reached within 1 passes by 3 of 3 blocks: layer1.0 (")
    assert found.note in str(found)
    assert found.as_dict()["note"] == found.note


# --- remedies


def first_remedy(net: nn.Module, cause: str, title: str, x: Tensor = X) -> Callable[..., Any]:
    verdict = sb.diagnose(net, x, Y, passes=()).verdict
    assert verdict.cause.startswith(f"{cause}: "), str(verdict)
    assert verdict.remedies[0].title == title
    return verdict.remedies[0].apply


def assert_near_one(net: nn.Module, x: Tensor = X) -> None:
    layers = survey(net, x, len(Y))[0]
    assert {name: layer.current_std for name, layer in layers.items() if not 0.8 < layer.current_std < 1.25} == {}
    assert all(layer.silent < 0.95 for layer in layers.values())


SICK: dict[str, tuple[Callable[[], Any], str, str]] = {
    "small gamma": (lambda: norms_set(small_net(), "weight", 1e-3), "norm", "norm weights"),
    "large gamma": (lambda: norms_set(small_net(), "weight", 500.0), "norm", "norm weights"),
    "zero gamma": (lambda: norms_set(small_net(), "weight", 0.0), "zero weights", "zero weights"),
    "bias": (lambda: norms_set(small_net(), "bias", -20.0), "bias", "bias"),
    "zero weights": (lambda: zero_convolutions(small_net()), "zero weights", "zero weights"),
    "zero weights, no norm": (
        lambda: zero_convolutions(small_net(norm=nn.Identity())), "zero weights", "zero weights",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", SICK)
def test_currents_come_near_one_where_the_fault_is(name: str) -> None:
    make, cause, title = SICK[name]
    torch.manual_seed(0)
    net = make()
    kept = copy.deepcopy(net)
    treated = first_remedy(net, cause, title)(net, X, Y)
    assert_near_one(treated)
    if "gamma" in name or "bias" in name:  # a norm's fault: no convolution is touched
        convolutions = [
            (a, b) for a, b in zip(kept.modules(), treated.modules(), strict=True) if isinstance(a, nn.Conv2d)
        ]
        assert all(torch.equal(a.weight, b.weight) for a, b in convolutions)


def test_a_readout_without_weights() -> None:
    net = small_net()
    nn.init.zeros_(net.fc.weight)
    verdict = sb.diagnose(net, X, Y, passes=()).verdict
    assert "fc.weight is 0 throughout" in verdict.cause
    net = verdict.remedies[0].apply(net, X, Y)
    assert all(block["gradient"] > 0 for block in sb.diagnose(net, X, Y, passes=()).blocks)


class Shared(nn.Module):
    """One convolution in front of two neurons: a scale that suits the first does not suit the second."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Linear(16, 16, bias=False)
        nn.init.constant_(self.conv.weight, 0.0)
        with torch.no_grad():
            self.conv.weight.copy_(0.01 * torch.eye(16))
        self.first, self.second, self.fc = sb.LIF(), sb.LIF(), nn.Linear(16, 10)

    def forward(self, x: Tensor) -> Tensor:
        z = x.flatten(1)[:, :16].unsqueeze(0)
        return self.fc(self.second(self.conv(100 * self.first(self.conv(z)))))


def test_what_cannot_be_scaled_is_left_bit_for_bit() -> None:
    net = Shared()
    apply = first_remedy(net, "initialisation", "initialisation")
    before = snapshot(net)
    with pytest.raises(UsageError, match=r"current of 2 of 2 layers cannot be brought to a spread of 1 .*second \("):
        apply(net, X, Y)
    assert_same(before, snapshot(net))


def test_a_fault_that_a_later_step_meets_leaves_all_as_it_was() -> None:
    """Every remedy: thresholds, tau, surrogates, weights and random state are those from before."""
    net = small_net(neuron=sb.LIF(0.0, 50.0))
    zero_convolutions(sick := copy.deepcopy(net))
    found = {r.title: r for n in (net, sick) for r in sb.diagnose(n, X, Y, passes=()).verdict.remedies}
    calls = [0]

    def give_up(_module: nn.Module, _args: Any) -> None:
        calls[0] += 1
        if calls[0] == 4:
            raise RuntimeError("the roof caved in")

    for remedy in found.values():
        calls[0] = 0
        net = zero_convolutions(small_net(neuron=sb.LIF(0.0, 50.0)))
        net.layer2[0].lif2.register_forward_pre_hook(give_up)
        before = snapshot(net)
        with pytest.raises((RuntimeError, UsageError)):
            remedy.apply(net, X, Y)
        assert_same(before, snapshot(net))


def test_a_learning_rate_is_nothing_a_network_has() -> None:
    net = small_net()
    verdict = sb.diagnose(net, X, Y, lr=1000.0, passes=()).verdict
    assert verdict.kind == "healthy"
    assert "learning rate of 1000 is too large" in verdict.cause
    assert [r.title for r in verdict.remedies] == ["learning rate"]
    lr = float(verdict.remedies[0].code.removeprefix("--train.lr "))
    assert sb.diagnose(net, X, Y, lr=lr, passes=()).verdict.remedies == ()
    before = snapshot(net)
    with pytest.raises(UsageError, match="set where the optimiser is made"):
        verdict.remedies[0].apply(net, X, Y)
    assert_same(before, snapshot(net))


def test_another_frameworks_network() -> None:
    """SpikingJelly's neurons and layers, step mode m: gamma is found and mended, conv weights stay."""
    layer = need("spikingjelly.activation_based.layer")

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            blocks = []
            for i in range(2):
                conv = layer.Conv2d(8 if i else 1, 8, 3, padding=1, bias=False, step_mode="m")
                norm = layer.BatchNorm2d(8, step_mode="m")
                nn.init.constant_(norm.weight, 1e-4)
                blocks.append(nn.Sequential(conv, norm, jelly("IFNode")))
            self.blocks, self.fc = nn.ModuleList(blocks), nn.Linear(8, 10)

        def forward(self, x: Tensor) -> Tensor:
            z = x.expand(2, *x.shape)
            for block in self.blocks:
                z = block(z)
            return self.fc(z.mean((-2, -1)))

    torch.manual_seed(0)
    net = Net()
    convolution = net.get_submodule("blocks.0.0")
    weight = convolution.get_parameter("weight").clone()
    assert_near_one(first_remedy(net, "norm", "norm weights")(net, X, Y))
    assert torch.equal(convolution.get_parameter("weight"), weight)


def test_two_convolutions_into_one_neuron() -> None:
    """Both sides of a sum are found through whatever has no weights, and the spikes before them are not passed."""
    net = small_net()
    feeds = survey(net, X, len(Y))[1]
    assert feeds["layer2.0.lif2"].nearest == ["layer2.0.conv2.1", "layer2.0.shortcut.1"]
    assert feeds["layer1.0.lif2"].nearest == ["layer1.0.conv2.1"]
    assert feeds["layer1.0.lif2"].behind == ["layer1.0.conv2.0"]
    frozen = Chain(6, 8, 8).requires_grad_(False)
    assert survey(frozen, torch.rand(4, 6), 4)[1]["second.1"].nearest == ["second.0"]
