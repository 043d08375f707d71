"""Networks written for other frameworks are wrapped as they are."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import spikeback as sb

T, B, K = 3, 2, 5


def fire(u: Tensor) -> Tensor:
    """A step with the derivative of a sigmoid, as these frameworks have it, and nothing of ours."""
    soft = torch.sigmoid(4 * (u - 0.5))
    return ((u > 0.5).to(u) - soft).detach() + soft


class MemoryLIF(nn.Module):
    """SpikingJelly's way, multi-step: the membrane is an attribute that stays until reset()."""

    def __init__(self) -> None:
        super().__init__()
        self.v: Tensor | float = 0.0

    def reset(self) -> None:
        self.v = 0.0

    def step(self, x: Tensor) -> Tensor:
        u = 0.5 * self.v + x
        spikes = fire(u)
        self.v = u * (1 - spikes)
        return spikes

    def forward(self, x: Tensor) -> Tensor:
        return torch.stack([self.step(x_t) for x_t in x])


sb.register_stateful(MemoryLIF, MemoryLIF.reset)


class MultiStepConv(nn.Conv2d):
    def forward(self, input: Tensor) -> Tensor:  # (T, B, C, H, W)
        return super().forward(input.flatten(0, 1)).unflatten(0, input.shape[:2])


class JellyNet(nn.Module):
    """(T, B, C, H, W) -> (T, B, K), every module once."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            MultiStepConv(3, 4, 3, padding=1), MemoryLIF(), MultiStepConv(4, 6, 3), MemoryLIF()
        )
        self.fc = nn.Linear(6, K)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.features(x).mean((-2, -1)))


class Leaky(nn.Module):
    """snnTorch's way: membrane in, (spikes, membrane) out."""

    def forward(self, x: Tensor, mem: Tensor | float) -> tuple[Tensor, Tensor]:
        mem = 0.9 * mem + x
        spikes = fire(mem)
        return spikes, mem - 0.5 * spikes.detach()


class LoopNet(nn.Module):
    """A static image stepped T times in a Python loop -> (spikes, membranes), both (T, B, K)."""

    def __init__(self, convolutional: bool = True) -> None:
        super().__init__()
        self.enter = nn.Conv2d(3, 4, 3) if convolutional else nn.Linear(3 * 8 * 8, 4)
        self.convolutional = convolutional
        self.lif1, self.lif2 = Leaky(), Leaky()
        self.fc = nn.Linear(4 * 6 * 6 if convolutional else 4, K)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        mem1: Tensor | float = 0.0
        mem2: Tensor | float = 0.0
        spikes, membranes = [], []
        for _ in range(T):
            spk1, mem1 = self.lif1(self.enter(x if self.convolutional else x.flatten(1)), mem1)
            spk2, mem2 = self.lif2(self.fc(spk1.flatten(1)), mem2)
            spikes.append(spk2)
            membranes.append(mem2)
        return torch.stack(spikes), torch.stack(membranes)


def frames() -> Tensor:
    return torch.randn(T, B, 3, 8, 8)


def reset_net(net: nn.Module) -> None:
    for module in net.modules():
        if isinstance(module, MemoryLIF):
            module.reset()


def linears(model: Any) -> list[nn.Linear]:
    return [m for m in model.branches.modules() if isinstance(m, nn.Linear)]


def test_multi_step_net_with_hidden_state() -> None:
    net, x = JellyNet(), frames()
    model = sb.ShortcutNet(net, taps=["features.1", "features.3"], num_classes=K, example=x)
    expected = net(x)
    assert not torch.equal(net(x), expected)  # the state is still there: forgotten by the user, reset by the wrapper
    spikes: list[Tensor] = []
    net.features[1].register_forward_hook(lambda *call: spikes.append(call[2]))
    main, side = model.logits(x)
    assert torch.equal(main, expected)
    assert torch.equal(model(x, 0.25), main + 0.25 * sum(side.values()))
    assert torch.equal(side["features.1"], linears(model)[0](spikes[0].mean((-2, -1))))
    assert torch.equal(model(x), expected)
    assert model.strip() is net
    reset_net(net)
    assert torch.equal(net(x), expected)


def test_hidden_state_does_not_tie_two_backward_passes() -> None:
    net, x = JellyNet(), frames()
    model = sb.ShortcutNet(net, taps=["features.1"], num_classes=K, example=x)
    gradients = []
    for _ in range(2):
        model.zero_grad()
        model(x, 0.25).sum().backward()  # without a reset the second one raises
        gradients.append([p.grad.clone() for p in model.parameters() if p.grad is not None])
    assert all(torch.equal(a, b) for a, b in zip(*gradients, strict=True))


def test_hidden_state_survives_a_change_of_batch_size() -> None:
    model = sb.ShortcutNet(JellyNet(), taps=["features.1"], num_classes=K, example=frames())
    for batch in (2, 7, 1):
        assert model(torch.randn(T, batch, 3, 8, 8), 0.25).shape == (T, batch, K)


@pytest.mark.parametrize("convolutional", [True, False])
def test_net_stepped_in_a_loop_returning_tuples(convolutional: bool) -> None:
    net, x = LoopNet(convolutional), torch.randn(B, 3, 8, 8)
    model = sb.ShortcutNet(net, taps=["lif1"], num_classes=K, example=x)
    seen: list[Tensor] = []
    net.lif1.register_forward_hook(lambda _, __, output: seen.append(output[0]))
    main, side = model.logits(x)
    assert len(seen) == T
    assert torch.equal(main, net(x)[1])  # the membranes of the readout, not its spikes
    spikes = torch.stack(seen[:T])
    pooled = spikes.mean((-2, -1)) if convolutional else spikes
    assert torch.equal(side["lif1"], linears(model)[0](pooled))
    assert torch.equal(model(x, 0.25), main + 0.25 * side["lif1"])
    assert torch.equal(model(x), main)


def test_stepped_net_trains_through_its_branch() -> None:
    net, x = LoopNet(), torch.randn(B, 3, 8, 8)
    model = sb.ShortcutNet(net, taps=["lif1"], num_classes=K, example=x)
    F.cross_entropy(model(x, 0.25).mean(0), torch.tensor([0, 1])).backward()
    assert all(p.grad is not None for p in model.parameters())
    assert all(p.grad is not None and p.grad.any() for p in model.branches.parameters())


FAMILIES = {"reset": ("spikingjelly", "MemoryModule"), "reset_mem": ("snntorch", "SpikingNeuron")}
FAMILIES |= {"reset_states": ("sinabs", "StatefulLayer")}


@pytest.mark.parametrize("method", FAMILIES)
@pytest.mark.parametrize("weight", [0.0, 0.25])
def test_every_framework_is_reset_once_at_entry(method: str, weight: float) -> None:
    net, x, calls = JellyNet(), frames(), []
    model = sb.ShortcutNet(net, taps=["features.1"], num_classes=K, example=x)
    package, name = FAMILIES[method]
    base = type(name, (nn.Identity,), {method: lambda self: calls.append(method), "__module__": f"{package}.base"})
    net.features.append(type("Neuron", (base,), {"__module__": "mine"})())
    model(x, weight)
    assert calls == [method]
    model.logits(x)
    assert calls == [method] * 2
    model.strip()
    assert calls == [method] * 3


@pytest.mark.parametrize("method", ["reset", "reset_mem", "reset_hidden", "reset_states"])
def test_a_method_of_that_name_of_any_other_module_is_not_called(method: str) -> None:
    net, x = JellyNet(), frames()
    net.features.append(type("Cache", (nn.Identity,), {method: lambda self: pytest.fail("called")})())
    model = sb.ShortcutNet(net, taps=["features.1"], num_classes=K, example=x)
    model(x, 0.25)
    model(x)
    model.strip()


def test_a_reset_that_wants_arguments_is_not_called() -> None:
    class Table(nn.Linear):
        def reset(self, rows: int) -> None:
            raise AssertionError(rows)

    net, x = JellyNet(), frames()
    net.fc = Table(6, K)
    assert sb.ShortcutNet(net, taps=["features.1"], num_classes=K, example=x)(x, 0.25).shape == (T, B, K)
