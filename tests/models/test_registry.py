"""Models are made by name, from prototypes of neuron and norm."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import spikeback as sb
from spikeback.errors import UsageError


def modules_of(net: nn.Module, kind: type[nn.Module]) -> list[Any]:
    return [m for m in net.modules() if isinstance(m, kind)]


def test_the_promised_models_are_listed() -> None:
    promised = {f"spiking_resnet{n}" for n in ("18", "34", "19", "20", "20_he", "32_he", "44_he", "56_he")}
    assert promised | {"spiking_vgg11", "spiking_vgg16"} <= set(sb.list_models())


def test_attributes_say_what_was_asked_for(make_net: Callable[..., Any]) -> None:
    net = make_net(num_classes=7, time_steps=3)
    assert (net.num_classes, net.time_steps) == (7, 3)


def test_unknown_model_lists_the_choices() -> None:
    with pytest.raises(UsageError, match=r"'spiking_resnet99'.*spiking_resnet18.*spiking_vgg16"):
        sb.create_model("spiking_resnet99")


def test_unknown_stem_lists_the_choices() -> None:
    with pytest.raises(UsageError, match="'mnist'") as error:
        sb.create_model("spiking_resnet18", stem="mnist")
    assert all(stem in str(error.value) for stem in ("cifar", "imagenet", "dvs"))


def test_errors_are_one_line() -> None:
    for name, stem in (("nothing", "cifar"), ("spiking_resnet18", "nothing")):
        with pytest.raises(UsageError, match="'nothing'") as error:
            sb.create_model(name, stem=stem)
        assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("stem", "in_channels", "channels"), [("cifar", None, 3), ("imagenet", None, 3), ("dvs", None, 2), ("cifar", 1, 1)]
)
def test_input_channels_follow_the_stem(stem: str, in_channels: int | None, channels: int) -> None:
    net = sb.create_model("spiking_resnet18", stem=stem, in_channels=in_channels, width=4)
    assert modules_of(net, nn.Conv2d)[0].in_channels == channels


@pytest.mark.parametrize(
    ("name", "width"), [("spiking_resnet18", 64), ("spiking_resnet19", 128), ("spiking_resnet20_he", 16)]
)
def test_default_width(name: str, width: int) -> None:
    assert modules_of(sb.create_model(name), nn.Conv2d)[0].out_channels == width


def test_default_neuron_is_the_default_layer(make_net: Callable[..., Any]) -> None:
    default = sb.LIF()
    for lif in modules_of(make_net(), sb.LIF):
        assert (lif.tau, lif.threshold, lif.surrogate) == (default.tau, default.threshold, default.surrogate)


def test_neuron_is_a_prototype_copied_for_every_layer(make_net: Callable[..., Any]) -> None:
    prototype = sb.LIF(tau=0.5, threshold=1.0, surrogate=sb.surrogate.ATan(3.0), detach_reset=True)
    prototype.gain.fill_(2.0)
    neurons = modules_of(make_net(neuron=prototype), sb.LIF)
    assert len({id(n) for n in neurons}) == 17
    assert all(n is not prototype for n in neurons)
    for n in neurons:
        assert (n.tau, n.threshold, n.detach_reset, n.gain.item()) == (0.5, 1.0, True, 2.0)
        assert n.surrogate == sb.surrogate.ATan(3.0)
    neurons[0].gain.fill_(5.0)
    assert neurons[1].gain == prototype.gain == 2.0


class Step(nn.Module):
    """A neuron of one's own: no memory, no gradient, a parameter; time first."""

    def __init__(self) -> None:
        super().__init__()
        self.threshold = nn.Parameter(torch.tensor(0.5))

    def forward(self, x: Tensor) -> Tensor:
        assert x.dim() == 5  # (T, B, C, H, W)
        return torch.sigmoid(x - self.threshold)


class Scale(nn.Module):
    """A norm of one's own that works for any number of channels."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = nn.Parameter(torch.tensor(factor))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.factor


def test_any_module_serves_as_neuron(make_net: Callable[..., Any], images: Tensor) -> None:
    net = make_net(neuron=Step())
    assert not modules_of(net, sb.LIF)
    assert len({id(m.threshold) for m in modules_of(net, Step)}) == 17
    net(images).sum().backward()
    assert all(p.grad is not None for p in net.parameters())


def test_norm_is_a_prototype_copied_for_every_layer(make_net: Callable[..., Any], images: Tensor) -> None:
    prototype = Scale(0.75)
    net = make_net(norm=prototype)
    norms = modules_of(net, Scale)
    assert len({id(m.factor) for m in norms}) == 20
    assert all(m is not prototype and m.factor == 0.75 for m in norms)
    assert not any(hasattr(m, "running_mean") for m in net.modules())
    assert net(images).shape == (2, 3, 5)


def test_norm_prototype_keeps_its_settings_and_takes_the_channels_of_its_layer(
    make_net: Callable[..., Any], images: Tensor
) -> None:
    prototype = nn.BatchNorm2d(1, eps=1e-3, momentum=0.3)
    net = make_net(norm=prototype)
    norms = modules_of(net, nn.BatchNorm2d)
    assert len({id(m) for m in norms}) == 20
    assert all(m is not prototype and (m.eps, m.momentum) == (1e-3, 0.3) for m in norms)
    assert {m.num_features for m in norms} == {m.weight.numel() for m in norms} == {4, 8, 16, 32}
    assert net(images).shape == (2, 3, 5)


def test_models_of_one_seed_are_equal(make_net: Callable[..., Any]) -> None:
    states = []
    for _ in range(2):
        torch.manual_seed(5)
        states.append(make_net().state_dict())
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])


def test_initial_weights_are_those_of_the_authors_code(make_net: Callable[..., Any]) -> None:
    """Convolutions N(0, 2 / (k^2 C_out)), readout N(0, (1 / C_in)^2), bias 0."""
    net = make_net(width=32)
    convs = [m for m in modules_of(net, nn.Conv2d) if m.weight.numel() > 1000]
    assert {m.in_channels == m.out_channels for m in convs} == {True, False}  # some tell fan in from fan out
    for conv in convs:
        usual = (2 / (conv.kernel_size[0] * conv.kernel_size[1] * conv.out_channels)) ** 0.5
        assert conv.weight.std().item() == pytest.approx(usual, rel=0.1)
    assert net.fc.weight.std().item() == pytest.approx(1 / net.fc.in_features, rel=0.1)
    assert not net.fc.bias.any()


def test_two_norms_that_are_added_share_the_variance(make_net: Callable[..., Any]) -> None:
    net = make_net(norm=sb.nn.TdBatchNorm2d(1))
    for block in modules_of(net, sb.nn.BasicBlock):
        last = [block.conv2[1], *([block.shortcut[1]] if len([*block.shortcut.children()]) else [])]
        assert block.conv1[1].alpha == 1.0
        assert [norm.alpha for norm in last] == pytest.approx([0.5**0.5] * len(last))
