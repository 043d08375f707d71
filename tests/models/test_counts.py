"""Parameter counts to the last parameter."""

from typing import Any

import pytest
from torch import nn

import spikeback as sb


def count(net: nn.Module) -> int:
    return sum(p.numel() for p in net.parameters())


@pytest.mark.parametrize(
    ("name", "options", "parameters"),
    [
        ("spiking_resnet18", {}, 11_173_962),
        ("spiking_resnet18", {"num_classes": 100}, 11_220_132),
        ("spiking_resnet34", {}, 21_282_122),
        ("spiking_resnet34", {"num_classes": 100}, 21_328_292),
        ("spiking_resnet18", {"num_classes": 1000, "stem": "imagenet"}, 11_689_512),
        ("spiking_resnet34", {"num_classes": 1000, "stem": "imagenet"}, 21_797_672),
        ("spiking_resnet20", {}, 11_247_946),
        ("spiking_resnet20", {"num_classes": 100}, 11_294_116),
        ("spiking_resnet19", {}, 12_569_226),
        ("spiking_resnet18", {"stem": "dvs"}, 11_173_386),
        # He's CIFAR nets as published (269,722; 464,154; 658,586; 853,018) and two 1x1 conv + BN shortcuts (2,752)
        ("spiking_resnet20_he", {}, 272_474),
        ("spiking_resnet32_he", {}, 466_906),
        ("spiking_resnet44_he", {}, 661_338),
        ("spiking_resnet56_he", {}, 855_770),
    ],
)
def test_parameter_count(name: str, options: dict[str, Any], parameters: int) -> None:
    assert count(sb.create_model(name, **options)) == parameters


@pytest.mark.parametrize(
    ("name", "options", "taps", "parameters"),
    [
        ("spiking_resnet18", {}, "stage", 4_510),
        ("spiking_resnet34", {}, "stage", 4_510),
        ("spiking_resnet18", {"num_classes": 100}, "stage", 45_100),
        ("spiking_resnet18", {"num_classes": 1000, "stem": "imagenet"}, "stage", 451_000),
        ("spiking_resnet18", {"num_classes": 100}, "block", 141_500),
        ("spiking_resnet34", {"num_classes": 100}, "block", 327_900),
    ],
)
def test_branches_cost_a_linear_layer_each(name: str, options: dict[str, Any], taps: str, parameters: int) -> None:
    net = sb.create_model(name, **options)
    plain = count(net)
    model = sb.ShortcutNet(net, taps=taps)
    assert count(model.branches) == parameters
    assert count(model) == plain + parameters
    assert count(model.strip()) == plain


@pytest.mark.parametrize(
    ("name", "neurons"),
    [
        ("spiking_resnet18", 17),
        ("spiking_resnet34", 33),
        ("spiking_resnet19", 17),
        ("spiking_resnet20", 19),
        ("spiking_resnet56_he", 55),
        ("spiking_vgg11", 8),
        ("spiking_vgg16", 13),
    ],
)
def test_every_convolution_outside_a_shortcut_has_a_neuron_and_the_classifier_none(name: str, neurons: int) -> None:
    net = sb.create_model(name, width=4)
    assert sum(isinstance(m, sb.LIF) for m in net.modules()) == neurons
    convolutions = [m for m in net.modules() if isinstance(m, nn.Conv2d)]
    assert sum(c.kernel_size != (1, 1) for c in convolutions) == neurons
    assert sum(isinstance(m, nn.Linear) for m in net.modules()) == 1
