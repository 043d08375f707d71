"""A network says where it runs in PyTorch's operations, and why; what decides is what says it."""

import copy
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import spikeback as sb
from spikeback.errors import UsageError
from spikeback.lab.bench.measure import unfused
from spikeback.nn import ConvNorm, Stack, fuse, plain, why_not_fused
from spikeback.ops import native

kernels = pytest.mark.skipif(not native.available(), reason="no compiled kernels")
IMAGES = torch.randn(2, 3, 8, 8)


class Mine(sb.LIF):
    """Another neuron."""


@dataclass(frozen=True)
class Odd:
    """Another surrogate; it does not derive from ours, which would put it on their list."""

    def __call__(self, u: Tensor, threshold: float) -> Tensor:
        return torch.exp(-(u - threshold).abs())


def hooked(name: str) -> Any:
    def change(net: nn.Module) -> None:
        net.get_submodule(name).register_forward_hook(lambda *_: None)

    return change


def frozen(net: nn.Module) -> None:
    net.get_submodule("layer2.0.shortcut.1").eval()


ODD: Any = Odd()
MODES = "one norm takes the batch's statistics, the other the running ones"
REASONS: dict[str, tuple[dict[str, Any], Any, Tensor, dict[str, str] | str]] = {
    "norm": ({"norm": nn.GroupNorm(1, 4)}, None, IMAGES, "GroupNorm has no kernel"),
    "neuron": ({"neuron": Mine()}, None, IMAGES, "Mine has no kernel"),
    "double": ({}, nn.Module.double, IMAGES.double(), "float64 has no kernel, only float32, bfloat16"),
    "surrogate": ({"neuron": sb.LIF(surrogate=ODD)}, None, IMAGES, "the surrogate Odd() has no kernel"),
    "empty": ({}, None, IMAGES[:0], "the batch is empty"),
    "hook on a layer": ({}, hooked("layer1.0.conv2"), IMAGES, {"layer1.0.lif2": "a hook listens to ConvNorm"}),
    "hook on a norm": ({}, hooked("layer1.0.conv2.1"), IMAGES, {"layer1.0.lif2": "a hook listens to BatchNorm2d"}),
    "hook on a neuron": ({}, hooked("layer1.0.lif1"), IMAGES, {"layer1.0.lif1": "a hook listens to LIF"}),
    "modes": ({}, frozen, IMAGES, {"layer2.0.lif2": MODES}),
}  # fmt: skip


def network(**options: Any) -> Any:
    return sb.create_model("spiking_resnet18", num_classes=5, width=4, time_steps=2, **options)


@kernels
@pytest.mark.parametrize("what", REASONS)
def test_every_reason_is_said_and_is_the_one_that_decides(what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    options, change, x, expected = REASONS[what]
    net = network(**options)
    if change:
        change(net)
    calls: list[int] = []
    run = fuse.norm_lif
    monkeypatch.setattr(fuse, "norm_lif", lambda *args, **more: (calls.append(1), run(*args, **more))[1])
    found = why_not_fused(net, x)
    neurons = [name for name, module in net.named_modules() if isinstance(module, sb.LIF)]
    assert found == (dict.fromkeys(neurons, expected) if isinstance(expected, str) else expected)
    assert len(calls) == len(neurons) - len(found) + (what == "hook on a layer")  # its norm alone is not fused


@kernels
def test_of_a_fused_network_nothing_is_said_and_nothing_is_changed() -> None:
    for net in (network(), network(norm=sb.nn.TdBatchNorm2d(1)), sb.ShortcutNet(network(), "block")):
        before, state = copy.deepcopy(net.state_dict()), torch.get_rng_state()
        assert why_not_fused(net, IMAGES) == {}
        assert all(torch.equal(value, before[key]) for key, value in net.state_dict().items())
        assert torch.equal(torch.get_rng_state(), state)
    assert why_not_fused(nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU()), IMAGES) == {}


def test_inside_plain_everything_says_so() -> None:
    with plain():
        found = why_not_fused(network(), IMAGES)
    assert len(found) == 17
    assert set(found.values()) == {"inside plain() everything runs in PyTorch's operations"}


def test_without_kernels_the_cure_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(native, "KERNELS", None)
    assert set(why_not_fused(network(), IMAGES).values()) == {
        "no compiled kernels: build them with python -m spikeback.ops.native.build"
    }


@kernels
def test_a_neuron_outside_our_blocks_says_it_too() -> None:
    net = nn.Sequential(sb.LIF(), sb.LIF().double())
    assert why_not_fused(net[0], torch.randn(2, 3)) == {}
    found = why_not_fused(net[1], torch.randn(2, 3).double())
    assert found == {"": "float64 has no kernel, only float32, bfloat16"}


class Small(nn.Module):
    """Two spiking layers of ours in somebody's network."""

    def __init__(self, norm: nn.Module | None) -> None:
        super().__init__()
        self.body = Stack(ConvNorm(3, 4, 3, norm), sb.LIF(), ConvNorm(4, 4, 3, norm), sb.LIF())
        self.fc = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.body(x.expand(2, *x.shape)).mean((-2, -1)))


@kernels
def test_the_diagnosis_says_where_and_says_nothing_of_a_fused_network() -> None:
    found = {}
    for norm in (None, nn.GroupNorm(1, 4)):
        facts = sb.diagnose(Small(norm), IMAGES, torch.arange(2), blocks=["body.1", "body.3"], passes=[])
        found[norm] = [note for note in facts.facts["notes"] if "operations" in note], str(facts)
    (fused, text), (plainly, said) = found.values()
    assert (fused, "operations" in text) == ([], False)
    expected = "Runs in PyTorch's operations, which take longer: body.1 and 1 more (GroupNorm has no kernel)."
    assert plainly == [expected]
    assert expected in " ".join(said.split())


def test_bench_names_the_arms_that_are_not_fused() -> None:
    arms = [{"name": "ours", "facts": {"unfused": {"a": "GroupNorm has no kernel"}}}, {"name": "peer"}]
    assert unfused(arms) == ["ours: Runs in PyTorch's operations, which take longer: a (GroupNorm has no kernel)."]


@kernels
def test_a_backend_that_cannot_run_says_why() -> None:
    x, surrogate = torch.randn(2, 3), sb.surrogate.Triangle()
    with pytest.raises(UsageError, match=r"'cpu' cannot run this: float64 has no kernel.*; 'reference' can"):
        sb.lif(x.double(), 0.5, 0.5, surrogate, backend="cpu")
    with pytest.raises(UsageError, match="'triton' cannot run this: x is on cpu, not on cuda; 'cpu' can"):
        sb.lif(x, 0.5, 0.5, surrogate, backend="triton")
    with pytest.raises(UsageError, match=r"the kernels know one gain, not one of shape \(3,\)"):
        sb.lif(x, 0.5, 0.5, surrogate, gain=torch.ones(3), backend="cpu")
