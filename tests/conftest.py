"""Fixtures shared by all tests: a fixed seed, and networks small enough to train in milliseconds."""

import os
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor

import spikeback as sb

if not torch.cuda.is_available():  # before Lightning imports Triton: the kernels' tests need its interpreter then
    os.environ.setdefault("TRITON_INTERPRET", "1")
torch.set_num_threads(1)  # networks this small only wait for a second thread


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


@pytest.fixture
def make_net() -> Callable[..., Any]:
    """Makes a Spiking ResNet-18 of width 4, 5 classes, 2 time steps; every option of create_model may be given."""
    return partial(sb.create_model, "spiking_resnet18", num_classes=5, time_steps=2, width=4)


@pytest.fixture
def pictures() -> Tensor:
    return torch.randn(3, 3, 8, 8)  # (B, C, H, W)


@pytest.fixture
def live_net(make_net: Callable[..., Any], pictures: Tensor) -> Any:
    """The same network in eval mode, its running statistics those of the pictures, so that it does not stay silent."""
    net = make_net()
    for norm in (m for m in net.modules() if hasattr(m, "running_mean")):
        norm.momentum = 1.0
    with torch.no_grad():
        net(pictures)
    net.eval()
    assert net(pictures).std(1).min() > 0  # logits differ between pictures, so spikes reach the end
    return net
