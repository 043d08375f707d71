"""A diagnosis as a whole: its schema, its table, and the nets and circumstances it must cope with."""

import json
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import spikeback as sb

from .cases import Chain, block_names, found_blocks, smooth_images, some_labels

MakeNet = Callable[..., Any]
TOP = {"schema", "net", "batch_size", "time_steps", "loss", "lr", "blocks", "layers", "weights", "verdict"}
BLOCK = {"name", "kind", "gradient", "gradient_by_step", "gain", "predicted", "relu", "relu_predicted", "rate",
         "rate_by_step", "silent", "saturated", "active", "derivative", "second_moment", "fidelity", "unrelated",
         "relu_fidelity", "coherence", "descent", "participation", "share"}  # fmt: skip
LAYER = {"name", "block", "threshold", "rate", "rate_by_step", "silent", "saturated", "active", "derivative",
         "second_moment", "current_mean", "current_std", "fires_without_leak", "membrane"}  # fmt: skip
WEIGHT = {"name", "block", "norm", "gradient", "relative", "update"}
EXACT = 1e-5


def test_as_dict_is_json_with_the_keys_of_the_schema(make_net: MakeNet) -> None:
    found = sb.diagnose(make_net(), smooth_images(16), some_labels(16)).as_dict()
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert set(found) >= TOP
    assert all(set(block) >= BLOCK for block in found["blocks"])
    assert all(set(layer) >= LAYER for layer in found["layers"])
    assert all(set(weight) >= WEIGHT for weight in found["weights"])
    assert set(found["verdict"]) >= {"kind", "cause", "effective_depth", "remedies", "text"}
    assert all(set(remedy) >= {"title", "why", "code"} for remedy in found["verdict"]["remedies"])
    assert found["schema"] == 1
    assert found["net"] == "SpikingResNet"
    assert all(b["predicted"] is not None and b["relu"] is not None for b in found["blocks"] if b["name"] != "stem")


def test_passes_left_out_are_null(make_net: MakeNet) -> None:
    found = sb.diagnose(make_net(), smooth_images(16), some_labels(16), passes=()).as_dict()
    for key in (
        "fidelity",
        "unrelated",
        "relu_fidelity",
        "coherence",
        "descent",
        "predicted",
        "relu",
        "relu_predicted",
    ):
        assert all(block[key] is None for block in found["blocks"]), key
    one = sb.diagnose(make_net(), smooth_images(16), some_labels(16), passes=("fidelity",)).as_dict()
    assert all(block["fidelity"] is not None and block["coherence"] is None for block in one["blocks"])


def test_table_lists_every_block(make_net: MakeNet) -> None:
    net = make_net()
    diagnosis = sb.diagnose(net, smooth_images(8), some_labels(8), passes=())
    assert all(name in str(diagnosis) for name in block_names(net))


@pytest.mark.slow
def test_two_diagnoses_are_the_same(make_net: MakeNet) -> None:
    net, x, y = make_net(), smooth_images(16), some_labels(16)
    assert sb.diagnose(net, x, y).as_dict() == sb.diagnose(net, x, y).as_dict()


def test_blocks_without_gradient_are_nought_not_an_error() -> None:
    """A net that never fires: its gradients are 0 and its gains are numbers or null, never NaN."""
    net = Chain(4, 4, 4, neuron=sb.LIF(0.5, 0.5, sb.surrogate.Rectangle(0.1)))
    with torch.no_grad():
        for p in net.parameters():
            p.zero_()
    found = sb.diagnose(net, torch.rand(16, 4), some_labels(16, 2)).as_dict()
    json.dumps(found, allow_nan=False)
    assert [b["gradient"] for b in found["blocks"]] == [0.0] * len(found["blocks"])


def test_frozen_parameters_are_no_obstacle(make_net: MakeNet) -> None:
    net, x, y = make_net().double(), smooth_images(8, dtype=torch.float64), some_labels(8)
    whole = found_blocks(sb.diagnose(net, x, y, passes=()))
    net.encoder.requires_grad_(False)
    frozen = found_blocks(sb.diagnose(net, x, y, passes=()))
    for name in block_names(net):
        assert frozen[name]["gradient"] == pytest.approx(whole[name]["gradient"], rel=EXACT)


def test_inside_no_grad(make_net: MakeNet) -> None:
    net, x, y = make_net(), smooth_images(8), some_labels(8)
    expected = sb.diagnose(net, x, y, passes=()).as_dict()
    with torch.no_grad():
        assert sb.diagnose(net, x, y, passes=()).as_dict() == expected
        assert not torch.is_grad_enabled()


def test_wrapped_time_average(make_net: MakeNet) -> None:
    class Mean(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = Chain(6, 8, 8, classes=3, steps=3)

        def forward(self, x: Tensor) -> Tensor:
            return self.inner(x).mean(0)

    net, x, y = sb.TimeAveraged(Mean()), torch.rand(16, 6) * 2, some_labels(16, 3)
    found = sb.diagnose(net, x, y, blocks=["net.inner.first", "net.inner.second"], passes=()).as_dict()
    for block in found["blocks"]:
        assert block["gradient"] > 0
        assert math.hypot(*block["gradient_by_step"]) == pytest.approx(block["gradient"], rel=EXACT)
