"""Which modules the doctor takes for the blocks of a network."""

from collections.abc import Callable
from typing import Any

import pytest
from torch import nn

import spikeback as sb
from spikeback.doctor.adapters.neurons import spiking_layers
from spikeback.doctor.measure.blocks import find_blocks
from spikeback.doctor.remedies.catalogue import propose_taps
from spikeback.errors import UsageError

RESNET18 = [f"layer{stage}.{i}" for stage in range(1, 5) for i in range(2)]


class Residual(nn.Module):
    def __init__(self, depth: int = 2) -> None:
        super().__init__()
        self.body = nn.Sequential(*(m for _ in range(depth) for m in (nn.Linear(4, 4), sb.LIF())))


class Head(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc, self.lif = nn.Linear(4, 2), sb.LIF()


def pair() -> nn.Sequential:
    return nn.Sequential(nn.Linear(4, 4), sb.LIF())


def module(**children: nn.Module) -> nn.Module:
    net = nn.Module()
    for name, child in children.items():
        net.add_module(name, child)
    return net


def blocks(net: nn.Module, names: Any = None) -> list[str]:
    return find_blocks(net, spiking_layers(net), names)


def test_our_networks_say_their_blocks(make_net: Callable[..., Any]) -> None:
    assert blocks(make_net()) == RESNET18


def test_our_resnets_blocks_are_found_without_feature_info(make_net: Callable[..., Any]) -> None:
    net = make_net()
    net.feature_info = []
    assert blocks(net) == RESNET18


def test_our_wrappers_are_seen_through(make_net: Callable[..., Any]) -> None:
    model = sb.ShortcutNet(make_net())
    assert blocks(model) == [f"net.{name}" for name in RESNET18]
    assert all(isinstance(model.get_submodule(name), nn.Module) for name in blocks(model))
    assert blocks(sb.TimeAveraged(sb.Unrolled(make_net(), 2))) == [f"net.net.{name}" for name in RESNET18]


def test_stages_of_another_maker_are_not_blocks() -> None:
    net: Any = module(a=nn.Sequential(Residual(), Residual()))
    net.feature_info = [{"module": "a", "num_chs": 4, "reduction": 1}]  # timm's way: no kind
    assert blocks(net) == ["a.0", "a.1"]


@pytest.mark.parametrize(
    ("net", "names"),
    [
        (nn.Sequential(nn.Linear(4, 4), sb.LIF(), nn.Linear(4, 4), sb.LIF()), ["1", "3"]),
        (module(fc1=nn.Linear(4, 4), lif1=sb.LIF(), fc2=nn.Linear(4, 4), lif2=sb.LIF()), ["lif1", "lif2"]),
        (nn.Sequential(pair(), pair(), nn.Linear(4, 2)), ["0", "1"]),
        (nn.Sequential(nn.Sequential(Residual(), Residual()), nn.Sequential(Residual())), ["0.0", "0.1", "1.0"]),
        (module(stages=nn.ModuleList([nn.ModuleList([pair()]), pair()])), ["stages.0.0", "stages.1"]),
        (module(stem=pair(), one=Residual(), two=Residual(1), head=Head()), ["one", "two"]),
        (nn.Sequential(module(layer1=nn.Sequential(Residual(), Residual()))), ["0.layer1.0", "0.layer1.1"]),
        (nn.Sequential(Residual(3)), ["0.body.1", "0.body.3", "0.body.5"]),
        (module(one=Residual(1), head=Head()), ["one.body.1", "head.lif"]),
    ],
    ids=["flat", "attributes", "pairs", "stages", "lists", "siblings", "wrapped", "lone_unit", "unlike"],
)
def test_inferred_blocks(net: nn.Module, names: list[str]) -> None:
    assert blocks(net) == names


def test_blocks_given_are_kept_in_their_order() -> None:
    net = nn.Sequential(pair(), pair(), nn.Sequential(pair(), pair()))
    assert blocks(net, ("2.1", "0", "1.0")) == ["2.1", "0", "1.0"]


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["0", "7"], r"blocks: no module '7'; choose from 0, 1, 2"),
        (["0", ""], r"blocks: no module ''"),
        (["0"], "two different modules or more .* choose from 0, 1, 2"),
        ("0", "two different modules or more"),
        ([], "two different modules or more"),
        (["0", "0"], "two different modules or more"),
        (["0", "1", "1.0"], r"'1.0' is inside '1'"),
    ],
)
def test_bad_blocks_are_one_clear_message(names: Any, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        blocks(nn.Sequential(pair(), pair(), pair()), names)


def test_no_spiking_layer_names_the_option() -> None:
    with pytest.raises(UsageError, match=r"no spiking layer found in Sequential: pass is_spiking="):
        blocks(nn.Sequential(nn.Linear(4, 4), nn.ReLU()), ["0", "1"])


def test_one_spiking_layer_names_the_options() -> None:
    with pytest.raises(UsageError, match=r"one spiking layer in Sequential, '1'.*blocks=.*is_spiking="):
        blocks(nn.Sequential(nn.Linear(4, 4), sb.LIF()))


def test_one_spiking_layer_with_two_blocks_given() -> None:
    assert blocks(nn.Sequential(nn.Linear(4, 4), sb.LIF()), ["0", "1"]) == ["0", "1"]


def test_a_neuron_shared_by_two_blocks_is_in_both() -> None:
    lif = sb.LIF()
    net = nn.Sequential(nn.Sequential(nn.Linear(4, 4), lif), nn.Sequential(nn.Linear(4, 4), lif))
    assert blocks(net) == ["0", "1"]


def test_taps_are_proposed_in_network_order_wherever_the_gradient_fell_to_a_tenth() -> None:
    gradients = {"a": 1e-4, "b": 0.002, "c": 0.03, "d": 0.05, "e": 0.5, "f": 1.0}
    rows = [{"name": name, "gradient": gradient} for name, gradient in gradients.items()]
    assert propose_taps(rows) == ["a", "b", "d"]
    assert propose_taps([{"name": name, "gradient": 1.0} for name in "abc"]) == ["a"]  # the first in any case
