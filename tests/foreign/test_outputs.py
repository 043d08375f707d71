"""Networks that return spikes and membranes, as snnTorch's tutorials do: the membranes are the logits."""

from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import spikeback as sb
from spikeback.doctor import decompose
from spikeback.foreign import logits_of

from ..doctor.peers import torch_neuron

T, B, K = 4, 16, 5


def mean_cross_entropy(logits: Tensor, y: Tensor) -> Tensor:
    return F.cross_entropy(logits.mean(0), y)


class Tutorial(nn.Module):
    """Tutorial 5 of snnTorch: `return torch.stack(spk_rec), torch.stack(mem_rec)`; the readout never fires."""

    def __init__(self, returns: str = "both", neuron: str = "Leaky", **options: Any) -> None:
        super().__init__()
        self.returns = returns
        self.fc1, self.lif1 = nn.Linear(20, 30), torch_neuron("Leaky", beta=0.9, threshold=0.3)
        self.fc2 = nn.Linear(30, K)
        self.lif2 = torch_neuron(neuron, beta=0.9, **{"threshold": 1000.0, **options})

    def forward(self, x: Tensor) -> Any:
        mem1, state = self.lif1.reset_mem(), self.lif2.reset_mem()
        state = state if isinstance(state, tuple) else (state,)
        spikes, membranes = [], []
        for x_t in x:
            s, mem1 = self.lif1(self.fc1(x_t), mem1)
            s, *state = self.lif2(self.fc2(s), *state)
            spikes.append(s)
            membranes.append(state)
        both = torch.stack(spikes), *(torch.stack(z) for z in zip(*membranes, strict=True))
        return both if self.returns == "both" else both[0] if self.returns == "spikes" else both[-1]


class Step(nn.Module):
    """One time step; its neurons keep their state."""

    def __init__(self) -> None:
        super().__init__()
        lif = lambda **options: torch_neuron("Leaky", beta=0.9, init_hidden=True, **options)
        self.first = nn.Sequential(nn.Linear(20, 30), lif(threshold=0.3))
        self.second = nn.Sequential(nn.Linear(30, K), lif(threshold=1000.0, output=True))

    def forward(self, x: Tensor) -> Any:
        return self.second(self.first(x))


def tutorial(returns: str = "both", **options: Any) -> Any:
    torch.manual_seed(0)
    return Tutorial(returns, **options)


def batch() -> tuple[Tensor, Tensor]:
    torch.manual_seed(1)
    return torch.randn(T, B, 20), torch.arange(B) % K


def figures(found: Any) -> list[Any]:
    rows = [[row[key] for key in ("name", "gradient", "gain", "coherence", "descent")] for row in found.blocks]
    return [found.facts["loss"], rows, found.verdict.kind]


@pytest.mark.slow
@pytest.mark.parametrize("threshold", [1000.0, 0.05])
def test_a_silent_readout_is_not_dead(threshold: float) -> None:
    x, y = batch()
    found = sb.diagnose(tutorial(threshold=threshold), x, y)
    assert found.verdict.kind != "dead"
    assert figures(found) == figures(sb.diagnose(tutorial("membranes", threshold=threshold), x, y))
    net = tutorial(threshold=threshold)
    assert found.facts["loss"] == pytest.approx(mean_cross_entropy(net(x)[1], y).item(), rel=1e-6)
    assert [layer["name"] for layer in found.layers] == ["lif1"]  # the readout is not judged as spikes
    (note,) = (note for note in found.facts["notes"] if "returns" in note)
    assert "returns 2 tensors of shape (4, 16, 5), and output[1] is what is judged, the membrane potential" in note
    assert "give loss=" in note


def test_spikes_alone_are_judged_and_so_are_those_that_loss_asks_for() -> None:
    x, y = batch()
    alone = sb.diagnose(tutorial("spikes"), x, y)
    assert alone.verdict.kind == "dead"
    assert not any("returns" in note for note in alone.facts["notes"])
    asked = sb.diagnose(tutorial(), x, y, loss=lambda output, labels: mean_cross_entropy(output[0], labels))
    assert asked.verdict.kind == "dead"
    assert asked.facts["loss"] == alone.facts["loss"]


def test_a_loss_gets_all_that_the_network_returns() -> None:
    (x, y), net, seen = batch(), tutorial(), []

    def loss(output: Any, labels: Tensor) -> Tensor:
        seen.append((output, len(labels)))
        return mean_cross_entropy(output[1], labels)

    found = sb.diagnose(net, x, y, loss=loss, blocks=["fc1", "fc2"])
    alone = sb.diagnose(tutorial("membranes"), x, y, loss=mean_cross_entropy, blocks=["fc1", "fc2"])
    assert figures(found) == figures(alone)
    assert all(type(output) is tuple and len(output) == 2 for output, _ in seen)
    assert {tuple(z.shape) for output, n in seen for z in output if n == B} == {(T, B, K)}
    parts = [output for output, n in seen if n < B]  # for the coherence
    assert {tuple(z.shape) for output in parts for z in output} == {(T, B // 8, K)}
    whole = seen[0][0]
    assert torch.equal(torch.cat([part[1] for part in parts], 1), whole[1])


class Out(NamedTuple):
    logits: Tensor
    hidden: dict[str, Any]


class Odd(nn.Module):
    """Returns other things than tensors of one shape."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.fc = nn.Sequential(nn.Linear(20, 30), sb.LIF()), nn.Linear(30, K)

    def forward(self, x: Tensor) -> Out:
        spikes = self.first(3 * x)
        return Out(self.fc(spikes), {"rates": spikes.mean(0), "steps": len(x), "all": [spikes]})


def test_a_loss_gets_parts_of_whatever_the_network_returns() -> None:
    (x, y), net, seen = batch(), Odd(), []

    def loss(output: Out, labels: Tensor) -> Tensor:
        shapes = [tuple(z.shape) for z in (output.logits, output.hidden["rates"], *output.hidden["all"])]
        seen.append((len(labels), output.hidden["steps"], shapes))
        return mean_cross_entropy(output.logits, labels) + output.hidden["rates"].mean()

    sb.diagnose(net, x, y, loss=loss, blocks=["first.0", "first.1"])
    assert {n for n, *_ in seen} == {B, B // 8}
    assert all(shapes == [(T, n, K), (n, 30), (T, n, 30)] and steps == T for n, steps, shapes in seen)


def test_branches_are_added_to_membranes_and_the_gradient_goes_through_them() -> None:
    x, y = batch()
    net = tutorial()
    model = sb.ShortcutNet(net, ["lif1"], example=x)
    main, side = model.logits(x)
    assert torch.equal(main, net(x)[1])
    assert torch.equal(model(x, 0.5), main + 0.5 * side["lif1"])
    assert torch.equal(model(x), main)
    mean_cross_entropy(model(x), y).backward()
    assert net.fc2.weight.grad.any()
    shares = decompose(model, x, y, 0.5, blocks=["lif1"])["lif1"]
    assert shares["main"]["norm"] > 0
    assert "membrane" in " ".join(sb.diagnose(model, x, y, weight=0.5).facts["notes"])


def test_adapters_hand_the_membranes_on() -> None:
    x, y = batch()
    net = sb.Unrolled(Step(), T, frames=True)
    found = sb.diagnose(net, x, y)
    assert found.verdict.kind != "dead"
    assert any("returns 2 tensors of shape (4, 16, 5), and output[1]" in note for note in found.facts["notes"])
    z = net(x)
    assert z.shape == (T, B, K)
    assert len(z.unique()) > 2
    averaged = sb.TimeAveraged(Averaged())
    assert torch.equal(averaged(x), averaged.net(x)[1][None])


class Averaged(nn.Module):
    """Whether a class fired at all, and its mean membrane potential."""

    def __init__(self) -> None:
        super().__init__()
        self.net = tutorial()

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        spikes, membranes = self.net(x)
        return spikes.amax(0), membranes.mean(0)


def test_of_a_synaptic_neuron_the_membrane_is_judged_not_its_current() -> None:
    x, y = batch()
    net = tutorial(neuron="Synaptic", alpha=0.8)
    assert torch.equal(logits_of(net(x)), net(x)[2])
    assert any("output[2]" in note for note in sb.diagnose(net, x, y).facts["notes"])


def test_which_tensor_is_taken() -> None:
    spikes, real = torch.tensor([[[0.0, 1.0]]]), torch.tensor([[[0.5, -1.0]]])
    with_gradient = spikes.clone().requires_grad_()
    assert logits_of((spikes, real)) is real
    assert logits_of([(spikes, real), "state"]) is real
    assert logits_of((torch.zeros(1, 1, 2), real)) is real
    assert logits_of((real, spikes)) is real
    assert logits_of((real, 2 * real))[0, 0, 0] == 0.5
    assert logits_of((spikes, spikes.clone())) is spikes
    assert logits_of((spikes, real[0])) is spikes  # another shape
    assert logits_of((with_gradient, real)) is with_gradient  # no gradient would go through the membrane
    assert torch.equal(logits_of([real[0], 2 * real[0]]), torch.cat([real, 2 * real]))
