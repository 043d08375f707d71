"""Every neuron class of four frameworks is recognised, and no module that may spike is left out without a word."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import spikeback as sb
from spikeback.doctor.adapters.families import reads_out, spikes
from spikeback.doctor.adapters.neurons import neuron_of, spiking_layers
from spikeback.foreign import reset_state

from .peer_classes import N, neurons, table
from .peers import jelly, need, torch_neuron

pytestmark = pytest.mark.peers

ROOT = Path(__file__).parents[2]
T, B = 4, 8
FRAMEWORKS = {"SpikingJelly": "spikingjelly", "snnTorch": "snntorch", "norse": "norse.torch", "sinabs": "sinabs"}
QUIET = {
    "NonSpikingBaseNode", "NonSpikingIFNode", "NonSpikingLIFNode", "NoisyNonSpikingBaseNode", "NoisyNonSpikingIFNode",
    "LI", "LICell", "LIBoxCell", "LILinearCell", "ExpLeak", "ExpLeakSqueeze",
}  # fmt: skip
every_framework = pytest.mark.parametrize("framework", FRAMEWORKS)


@pytest.fixture(autouse=True)
def _forgotten() -> Iterator[None]:
    """snnTorch keeps every neuron ever made, and resets all of them at once."""
    yield
    if "snntorch" in sys.modules:
        sys.modules["snntorch"].SpikingNeuron.instances.clear()


@every_framework
def test_every_class_spikes_or_reads_out(framework: str) -> None:
    need(FRAMEWORKS[framework])
    made = {name: make() for name, make in neurons()[framework].items()}
    assert len(made) > 9
    assert [name for name, module in made.items() if spikes(module) == reads_out(module)] == []
    quiet = {name for name, module in made.items() if reads_out(module)}
    assert quiet == QUIET & set(made)
    assert list(spiking_layers(nn.ModuleDict(made))) == [name for name in made if name not in quiet]


def test_the_table_in_the_docs_is_what_is_known() -> None:
    for name in FRAMEWORKS.values():
        need(name)
    assert table() in (ROOT / "docs/doctor.md").read_text(encoding="utf-8")


def test_layers_of_snntorch_that_leave_their_spikes_out() -> None:
    frame = need("snntorch")
    membranes = [frame.StateLeaky(0.5, N, output=False), frame.LinearLeaky(0.5, N, N, output=False)]
    assert all(reads_out(m) and not spikes(m) for m in membranes)
    product = frame.AssociativeLeaky(N, 2, 3, 6)
    assert not spikes(product)
    assert not reads_out(product)
    assert spikes(frame.AssociativeLeaky(N, 2, 3, 6, use_q_projection=False))


def parallel(kind: str) -> Any:
    neuron = need("spikingjelly.activation_based.neuron")
    torch.manual_seed(0)
    made = {
        "PSN": lambda: neuron.PSN(T),
        "MaskedPSN": lambda: neuron.MaskedPSN(2, T, lambda_init=0.5, step_mode="m"),
        "SlidingPSN": lambda: neuron.SlidingPSN(2, step_mode="m"),
    }[kind]()
    nn.init.constant_(made.bias, -0.5)
    return made


@pytest.mark.parametrize("kind", ["PSN", "MaskedPSN", "SlidingPSN"])
def test_membranes_of_parallel_neurons(kind: str) -> None:
    layer = parallel(kind)
    neuron = neuron_of(layer)
    assert neuron is not None
    x = (1.5 * torch.randn(T, B, N)).requires_grad_()
    out = layer(x)
    u = neuron.membrane(x.detach(), out.detach())
    assert torch.equal((u >= neuron.threshold).float(), out.detach())
    assert 0.05 < out.mean() < 0.95
    (grad,) = torch.autograd.grad(out.sum(), x)
    free = x.detach().requires_grad_()
    weight = torch.stack([neuron.membrane(e[:, None, None].expand(T, 1, 1), e)[:, 0, 0] for e in torch.eye(T)], 1)
    back = torch.einsum("ts,tbn->sbn", weight, neuron.derivative(u))
    assert torch.allclose(back, grad, atol=1e-5)
    assert free.grad is None
    with torch.no_grad():
        layer.bias.fill_(0.5)
    assert neuron_of(layer) is None  # no threshold above 0


class Signed(nn.Module):
    """A neuron of nobody's: one step, with a straight-through gradient."""

    def forward(self, x: Tensor) -> Tensor:
        return ((x > 0.1).to(x) - x).detach() + x


class Block(nn.Module):
    """A layer that fires without a module of its own for it."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(N, N)

    def forward(self, x: Tensor) -> Tensor:
        z = self.fc(x)
        return ((z > 0.1).to(z) - z).detach() + z


def test_what_may_spike_and_is_not_known_is_named_and_has_no_relu_twin() -> None:
    lif = lambda: jelly("IFNode", v_threshold=0.2)
    tempotron = need("spikingjelly.timing_based.neuron").Tempotron
    known = nn.Sequential(nn.Linear(N, N), lif(), nn.Linear(N, N), lif(), nn.Linear(N, 5))
    x, y = torch.randn(T, B, N), torch.arange(B) % 5
    whole = sb.diagnose(known, x, y)
    assert whole.facts["notes"] == []
    assert all(block["relu"] is not None for block in whole.blocks)
    mixed = nn.Sequential(*known[:2], nn.Sequential(nn.Linear(N, N), Signed()), Block(), *known[2:])
    mixed.add_module("spare", tempotron(N, N, T))
    mixed.spare.forward = lambda z: z  # pyright: ignore - never mind what it does
    found = sb.diagnose(mixed, x, y)
    (note,) = found.facts["notes"]
    assert "spare (Tempotron), 2.1 (Signed), 3 (Block)." in note
    assert note in " ".join(str(found).split())
    assert all(block["relu"] is None for block in found.blocks)
    told = lambda m: type(m).__name__ in ["Block", "Signed", "Tempotron"]  # what the note says
    assert "['Block', 'Signed', 'Tempotron']" in note
    assert sb.diagnose(mixed, x, y, is_spiking=told).facts["notes"] == []


class Tutorial(nn.Module):
    """snnTorch's tutorials: the membrane of the last layer is the output."""

    def __init__(self, hidden: bool) -> None:
        super().__init__()
        lif = lambda threshold: torch_neuron("Leaky", beta=0.9, threshold=threshold, init_hidden=hidden)
        self.hidden = hidden
        self.fc1, self.lif1, self.fc2, self.lif2 = nn.Linear(N, 30), lif(0.3), nn.Linear(30, 30), lif(0.1)
        self.fc3, self.lif3 = nn.Linear(30, 5), lif(50.0)  # no spike ever: nobody reads them

    def forward(self, x: Tensor) -> Tensor:
        states, out = [lif.reset_mem() for lif in (self.lif1, self.lif2, self.lif3)], []
        for x_t in x:
            if self.hidden:
                self.lif3(self.fc3(self.lif2(self.fc2(self.lif1(self.fc1(x_t))))))
                out.append(self.lif3.mem)
            else:
                s, states[0] = self.lif1(self.fc1(x_t), states[0])
                s, states[1] = self.lif2(self.fc2(s), states[1])
                _, states[2] = self.lif3(self.fc3(s), states[2])
                out.append(states[2])
        return torch.stack(out)


@pytest.mark.parametrize("hidden", [False, True])
def test_a_membrane_that_is_read_out_is_no_sick_block(hidden: bool) -> None:
    torch.manual_seed(0)
    x, y = torch.randn(T, B, N), torch.arange(B) % 5
    found = sb.diagnose(Tutorial(hidden), x, y)
    assert found.verdict.kind == "healthy"
    assert found.verdict.effective_depth == 2
    assert [block["name"] for block in found.blocks] == ["lif1", "lif2"]
    assert [layer["name"] for layer in found.layers] == ["lif1", "lif2"]
    assert found.facts["notes"] == [
        "The membrane of lif3 is what the network puts out: part of the readout, not judged as spikes."
    ]
    assert found.facts["notes"][0] in str(found)


def test_a_block_that_gets_no_gradient_at_all_is_sick_still() -> None:
    """Its spikes do not matter, and nothing of it is read either."""
    torch.manual_seed(0)

    class Cut(Tutorial):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x).detach() + self.fc3.bias

    found = sb.diagnose(Cut(False), torch.randn(T, B, N), torch.arange(B) % 5, passes=())
    assert found.facts["notes"] == []
    assert [block["name"] for block in found.blocks] == ["lif1", "lif2", "lif3"]
    assert found.verdict.kind != "healthy"


@pytest.mark.parametrize("decode", [None, "mean-mem"])
def test_a_list_over_time_is_read_as_a_whole(decode: str | None) -> None:
    """SpikingJelly's non-spiking nodes put out a list of membranes, or their mean: the same gradient in both."""
    node = need("spikingjelly.activation_based.neuron").NonSpikingLIFNode
    lif = lambda: jelly("IFNode", v_threshold=0.2)
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(N, N), lif(), nn.Linear(N, N), lif(), nn.Linear(N, 5), node(decode=decode))
    x, y = torch.randn(T, B, N), torch.arange(B) % 5
    out = sb.diagnose(net, x, y, passes=())
    expected = nn.functional.cross_entropy(torch.stack(out_of(net, x)).mean(0) if decode is None else out_of(net, x), y)
    assert out.facts["loss"] == pytest.approx(expected.item(), rel=1e-5)
    assert all(step > 0 for step in out.blocks[-1]["gradient_by_step"])


def out_of(net: nn.Module, x: Tensor) -> Any:
    reset_state(net)
    return net(x)


def test_spikes_with_a_height_or_a_sign_are_counted_one_by_one() -> None:
    neuron = need("spikingjelly.activation_based.neuron")
    x, y = 3 * torch.randn(T, B, N), torch.arange(B) % 5
    tall = lambda: neuron.DSRIFNode(T, v_threshold=6.0)
    signed = lambda: neuron.TernaryIFNode(v_threshold=0.5, step_mode="m")
    for make in (tall, signed):
        torch.manual_seed(0)
        net = nn.Sequential(nn.Linear(N, N), make(), nn.Linear(N, N), make(), nn.Linear(N, 5))
        (layer, _) = sb.diagnose(net, x, y, passes=()).layers
        reset_state(net)
        spikes = net[:2](x)
        assert layer["rate"] == pytest.approx((spikes != 0).float().mean().item(), rel=1e-5)
        assert layer["silent"] == pytest.approx((spikes == 0).flatten(0, 1).all(0).float().mean().item())
        assert layer["saturated"] == pytest.approx((spikes != 0).flatten(0, 1).all(0).float().mean().item())


def test_a_neuron_with_weights_has_no_relu_in_its_place() -> None:
    leaky = lambda i, o: need("snntorch").LeakyParallel(i, o, beta=0.5, threshold=0.1)
    torch.manual_seed(0)
    net = nn.Sequential(leaky(N, 12), leaky(12, 9), nn.Linear(9, 5))
    found = sb.diagnose(net, torch.randn(T, B, N), torch.arange(B) % 5)
    assert [layer["name"] for layer in found.layers] == ["0", "1"]
    assert all(block["relu"] is None for block in found.blocks)
