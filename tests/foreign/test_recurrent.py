"""Layers that cannot be copied are tapped as they are, and left as they were."""

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import spikeback as sb

from ..doctor.cases import assert_same, snapshot
from ..doctor.peers import need

pytestmark = pytest.mark.peers

T, B, F, K = 3, 4, 6, 5


class Recurrent(nn.Module):
    """sinabs's recurrent neurons, (B, T, ...) inside."""

    def __init__(self) -> None:
        super().__init__()
        layers = need("sinabs.layers")
        self.first = nn.Sequential(nn.Linear(F, 8), layers.LIFRecurrent(tau_mem=3.0, rec_connect=nn.Linear(8, 8)))
        self.second = nn.Sequential(nn.Linear(8, 8), layers.LIF(tau_mem=3.0))
        self.norm, self.fc = nn.BatchNorm1d(8), nn.Linear(8, K)

    def forward(self, x: Tensor) -> Tensor:
        z = self.second(9 * self.first(20 * x.transpose(0, 1)))
        return self.fc(self.norm(z.flatten(0, 1)).unflatten(0, z.shape[:2])).transpose(0, 1)


def net_in_the_middle_of_its_life() -> tuple[Any, Tensor]:
    torch.manual_seed(0)
    net, x = Recurrent(), torch.rand(T, B, F)
    net(x)  # its state hangs in a graph now
    return net, x


def test_a_recurrent_layer_of_sinabs_is_tapped() -> None:
    net, x = net_in_the_middle_of_its_life()
    with pytest.raises((RuntimeError, AttributeError, TypeError)):
        copy.deepcopy(net)
    before = snapshot(net, x, torch.zeros(B).long())
    model = sb.ShortcutNet(net, ["first", "second"], example=x)
    assert_same(before, snapshot(net, x, torch.zeros(B).long()))
    main, side = model.logits(x)
    assert {z.shape for z in (main, *side.values())} == {(T, B, K)}
    changed = x.clone()
    changed[:, 1] = 0
    other = model.logits(changed)[1]
    for tap, z in side.items():
        moved = (z != other[tap]).any(-1).any(0)
        assert not moved[[0, 2, 3]].any(), tap
    assert (side["first"] != other["first"]).any()
    model(x, 0.5).sum().backward()
    assert net.first[0].weight.grad.any()


def test_a_recurrent_layer_of_sinabs_is_diagnosed() -> None:
    net, x = net_in_the_middle_of_its_life()
    y = torch.arange(B) % K
    before = snapshot(net, x, y)
    found = sb.diagnose(net, x, y)
    assert [len(layer["rate_by_step"]) for layer in found.layers] == [T, T]
    assert_same(before, snapshot(net, x, y))
