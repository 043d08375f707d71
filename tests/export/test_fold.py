"""Folding changes no spike but those within rounding of the threshold, and nothing of the network given."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import spikeback as sb
from spikeback.export import fold
from spikeback.nn import ConvNorm, TdBatchNorm2d

NORMS = {
    "batch": None,
    "threshold-dependent": TdBatchNorm2d(1),
    "no-affine": nn.BatchNorm2d(1, affine=False),
}


def settle(net: Any, images: Tensor) -> Any:
    """In evaluation mode, with running statistics and affine parameters away from their start."""
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1.0
            if module.weight is not None:
                nn.init.uniform_(module.weight, 0.5, 1.5)
                nn.init.normal_(module.bias, std=0.1)
    with torch.no_grad():
        net(images)
    return net.eval()


@pytest.mark.parametrize("norm", NORMS, ids=str)
@pytest.mark.parametrize("name", ["spiking_resnet18", "spiking_resnet20", "spiking_vgg11"])
def test_folded_equals_the_network_in_float64(name: str, norm: str, images: Tensor) -> None:
    net = sb.create_model(name, num_classes=5, time_steps=2, width=4, norm=NORMS[norm]).double()
    net = settle(net, images.double())
    folded = fold(net)
    assert not [m for m in folded.modules() if isinstance(m, nn.BatchNorm2d)]
    assert torch.equal(folded(images.double()) != 0, net(images.double()) != 0)
    torch.testing.assert_close(folded(images.double()), net(images.double()), rtol=1e-9, atol=1e-12)


def test_convolution_carries_the_norm_in_float32(images: Tensor) -> None:
    torch.manual_seed(3)
    layer = settle(ConvNorm(3, 8, 3, None), images[None])
    net = nn.Sequential(layer)
    before = copy.deepcopy(net.state_dict())
    torch.testing.assert_close(fold(net)(images[None]), net(images[None]), rtol=1e-5, atol=1e-5)
    assert all(torch.equal(value, before[key]) for key, value in net.state_dict().items())


def test_a_bias_before_the_norm_is_scaled_with_it(images: Tensor) -> None:
    layer = settle(ConvNorm(3, 8, 3, None).double(), images[None].double())
    layer[0].bias = nn.Parameter(torch.randn(8).double())
    net = nn.Sequential(layer)
    torch.testing.assert_close(fold(net)(images[None].double()), net(images[None].double()), rtol=1e-9, atol=1e-12)


def test_norm_without_running_statistics_stays(make_net: Callable[..., Any], images: Tensor) -> None:
    net = make_net(norm=nn.BatchNorm2d(1, track_running_stats=False))
    folded = fold(net)
    assert len([m for m in folded.modules() if isinstance(m, nn.BatchNorm2d)]) > 0
    assert torch.equal(folded(images), net.eval()(images))
