"""The work of the arms, in this process on a tiny network."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

import spikeback.nn
from spikeback.lab.bench import nets, steps
from spikeback.lab.bench.neurons import both_ways, copy
from spikeback.lab.bench.worker import Absent

TINY: dict[str, Any] = {"width": 8, "time_steps": 2, "batch": 2, "size": 16, "classes": 5}
NETS = "spikeback.lab.bench.nets"


@pytest.mark.parametrize("net", ["ours", "shortcut", "ann"])
@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
@pytest.mark.parametrize("precision", ["float32", "bf16"])
def test_a_step_trains_the_same_network(net: str, layout: str, precision: str) -> None:
    step, facts = steps.train(f"{NETS}:{net}", layout=layout, precision=precision, **TINY)
    assert facts["convolution_weights"] == 174_552
    assert step().item() != facts["loss"]  # the same batch again: the weights are others


def test_the_faster_layout_is_one_of_both() -> None:
    _, facts = steps.train(f"{NETS}:ann", layout="faster", **TINY)
    assert facts["layout"] in steps.LAYOUTS


def test_ann_is_our_network_with_relu() -> None:
    ours, ann = nets.ours(8, 2, 5), nets.ann(8, 2, 5)
    shapes = [sorted(tuple(p.shape) for p in net.parameters()) for net in (ours, ann)]
    assert shapes[0] == shapes[1]


@pytest.mark.parametrize(("taps", "channels"), [("stage", (8, 16, 32)), ("block", (8, 8, 16, 16, 32, 32, 64))])
def test_branches_cost_a_linear_layer_each_and_nothing_when_stripped(taps: str, channels: tuple[int, ...]) -> None:
    name = {"name": "spiking_resnet18"}
    _, none = steps.train(f"{NETS}:ours", arguments=name, **TINY)
    _, with_branches = steps.train(f"{NETS}:shortcut", arguments=name | {"taps": taps}, **TINY)
    assert none["parameters_training"] == none["parameters_inference"] == with_branches["parameters_inference"]
    assert none["macs_training"] == none["macs_inference"] == with_branches["macs_inference"]
    assert with_branches["parameters_training"] - none["parameters_training"] == sum(5 * (c + 1) for c in channels)
    assert with_branches["macs_training"] - none["macs_training"] == sum(5 * c for c in channels)


def test_floor_is_every_convolution_and_the_readout_and_nothing_else() -> None:
    torch.manual_seed(0)
    model, x = nets.ours(8, 2, 5), torch.randn(2, 3, 16, 16)
    first, *middle, last = steps._sites(model, x, "float32")
    assert sum(isinstance(m, nn.Conv2d) for m in model.modules()) == 1 + len(middle)
    assert torch.equal(first[1], x)  # the stem sees B images, once
    assert isinstance(last[0], nn.Linear)
    for layer, spikes, grad in middle:
        assert spikes.requires_grad
        assert set(spikes.unique().tolist()) <= {0.0, 1.0}
        assert spikes.shape[0] == 4  # T * B
        assert layer(spikes).shape == grad.shape


def test_floor_updates_weights() -> None:
    step, facts = steps.floor(**TINY)
    step()
    assert 0 < facts["firing_rate"] < 1
    assert facts["convolution_weights"] == 174_552


def test_stripped_network_runs_as_if_never_wrapped() -> None:
    forward, facts = steps.infer(f"{NETS}:stripped", **TINY)
    assert facts["as_never_wrapped"] is True
    out = forward()
    assert isinstance(out, torch.Tensor)
    assert out.std(0).min() > 0  # not silent


def test_what_this_version_lacks_is_absent() -> None:
    with pytest.raises(Absent, match=r"this version has no spikeback\.nn\.turbo"):
        steps.train(f"{NETS}:ours", within="spikeback.nn:turbo", **TINY)


def test_every_forward_runs_within_its_context(monkeypatch: pytest.MonkeyPatch) -> None:
    entered = []

    @contextmanager
    def plain() -> Iterator[None]:
        entered.append(True)
        yield

    monkeypatch.setattr(spikeback.nn, "plain", plain, raising=False)
    step, _ = steps.train(f"{NETS}:ours", within="spikeback.nn:plain", **TINY)
    before = len(entered)
    step()
    assert (before, len(entered)) == (1, 2)


def test_folded_network_takes_the_place_of_the_stripped_one(monkeypatch: pytest.MonkeyPatch) -> None:
    class Folded(nn.Module):
        def forward(self, x: torch.Tensor, per_step: bool = True) -> torch.Tensor:
            return torch.full((2 if per_step else 1, len(x), 5), 7.0)

    monkeypatch.setitem(sys.modules, "spikeback.export", SimpleNamespace(fold=lambda net: Folded()))
    forward, _ = steps.infer(f"{NETS}:stripped", fold=True, **TINY)
    assert torch.equal(forward(), torch.full((2, 5), 7.0))


def test_logits_per_step_are_not_asked_for_where_the_network_has_a_choice() -> None:
    class Net(nn.Module):
        def forward(self, x: torch.Tensor, per_step: bool = True) -> torch.Tensor:
            return torch.zeros(4 if per_step else 1, len(x), 5)

    assert nets.Ours(Net()).arguments == {"per_step": False}
    assert nets.Ours(nn.Identity()).arguments == {}


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_neurons_alone_go_both_ways(dtype: str) -> None:
    arguments = {"surrogate": "Triangle(gamma=1.0)"}
    work, facts = both_ways("spikeback.lab.bench.neurons:ours", arguments, [2, 2, 3, 4, 4], dtype)
    work()
    assert 0 < facts["firing_rate"] < 1


def test_copy_counts_what_is_read_and_written() -> None:
    work, facts = copy(1000)
    work()
    assert facts["bytes_moved"] == 2000
