"""A measurement leaves everything as it was, bit for bit, also when it fails in the middle."""

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import spikeback as sb

from .cases import (
    Chain,
    K,
    MemoryNeuron,
    assert_same,
    is_memory_neuron,
    mean_cross_entropy,
    smooth_images,
    snapshot,
    some_labels,
)

MakeNet = Callable[..., Any]


def lived_in(net: nn.Module) -> nn.Module:
    """A net in the middle of its life: gradients of some parameters, some frozen, modes mixed, a user's own hook."""
    parameters = list(net.parameters())
    for p in parameters[::2]:
        p.grad = torch.randn_like(p)
    parameters[0].requires_grad_(False)
    for i, module in enumerate(net.modules()):
        if i % 5 == 4:
            module.training = not module.training
    next(net.children()).register_forward_hook(lambda _, __, output: None)
    next(net.children()).register_forward_pre_hook(lambda _, __: None)
    return net


class Mixed(nn.Module):
    """(T, B, F) -> (T, B, K): another framework's stateful neuron, dropout, batch norm, and a neuron of ours."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Linear(6, 8), MemoryNeuron())
        self.drop, self.norm = nn.Dropout(0.3), nn.BatchNorm1d(8)
        self.second = nn.Sequential(nn.Linear(8, 8), sb.LIF())
        self.fc = nn.Linear(8, K)

    def forward(self, x: Tensor) -> Tensor:
        z = self.drop(self.first(x))
        return self.fc(self.second(self.norm(z.flatten(0, 1)).unflatten(0, z.shape[:2])))


def spiking(module: nn.Module) -> bool:
    return is_memory_neuron(module) or isinstance(module, sb.LIF)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("kind", ["spiking_resnet18", "spiking_vgg11", "shortcut"])
def test_everything_is_as_it_was(make_net: MakeNet, kind: str, training: bool) -> None:
    options: dict[str, Any] = {"num_classes": K, "time_steps": 2, "width": 4}
    net = sb.create_model("spiking_resnet18" if kind == "shortcut" else kind, **options)
    net = sb.ShortcutNet(net, taps="block") if kind == "shortcut" else net
    lived_in(net.train(training))
    x, y = smooth_images(16), some_labels(16)
    before = snapshot(net, x, y)
    sb.diagnose(net, x, y, weight=0.25 if kind == "shortcut" else 0.0)
    assert_same(before, snapshot(net, x, y))


def test_stateful_neuron_and_dropout() -> None:
    net, x, y = Mixed(), 2 * torch.rand(3, 16, 6), some_labels(16)
    with torch.no_grad():
        net(x)
    lived_in(net)
    membrane: Any = net.get_submodule("first.1").v
    assert isinstance(membrane, Tensor)
    assert membrane.any()
    before = snapshot(net, x, y)
    sb.diagnose(net, x, y, is_spiking=spiking)
    assert_same(before, snapshot(net, x, y))
    assert net.get_submodule("first.1").v is membrane


def test_state_that_hangs_in_a_graph_still_hangs_there() -> None:
    """A membrane with a history, as another framework's user has between two truncated backward passes."""
    net, x, y = Mixed(), 2 * torch.rand(3, 16, 6), some_labels(16)
    net(x)
    membrane: Any = net.get_submodule("first.1").v
    sb.diagnose(net, x, y, is_spiking=spiking)
    assert net.get_submodule("first.1").v is membrane
    assert isinstance(membrane, Tensor)
    membrane.sum().backward()
    assert net.first[0].weight.grad is not None


@pytest.mark.slow
def test_input_that_requires_a_gradient_gets_none(make_net: MakeNet) -> None:
    net, x, y = make_net(), smooth_images(16).requires_grad_(), some_labels(16)
    sb.diagnose(net, x, y)
    assert x.requires_grad
    assert x.grad is None
    assert all(p.grad is None for p in net.parameters())


@pytest.mark.slow
def test_training_goes_on_as_if_nothing_had_been_measured(make_net: MakeNet) -> None:
    finals = []
    for measured in (False, True):
        torch.manual_seed(3)
        net, x, y = make_net(), smooth_images(16), some_labels(16)
        optimiser = torch.optim.SGD(net.parameters(), 0.1, momentum=0.9)
        for _ in range(3):
            mean_cross_entropy(net(x + 0.1 * torch.randn_like(x)), y).backward()
            if measured:
                sb.diagnose(net, x, y)
            optimiser.step()
            optimiser.zero_grad()
        finals.append([t.clone() for t in net.state_dict().values()])
    assert all(torch.equal(a, b) for a, b in zip(*finals, strict=True))


@contextmanager
def failing(net: nn.Module, at: int) -> Iterator[list[int]]:
    """The at-th call of a spiking layer of `net` fails; yields the count of calls so far."""
    calls = [0]

    def count(_module: nn.Module, _args: Any) -> None:
        calls[0] += 1
        if calls[0] == at:
            raise RuntimeError("the roof caved in")

    handles = [m.register_forward_pre_hook(count) for m in net.modules() if spiking(m)]
    yield calls
    for handle in handles:
        handle.remove()


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["resnet", "mixed", "chain"])
def test_failure_in_any_forward_pass(make_net: MakeNet, kind: str) -> None:
    """The network raises at its first, second, ... call of a neuron, in whichever pass that is."""
    net = {"resnet": make_net, "mixed": Mixed, "chain": lambda: Chain(6, 8, 8, classes=K, steps=3)}[kind]()
    x = {"resnet": smooth_images(16), "mixed": 2 * torch.rand(3, 16, 6), "chain": 2 * torch.rand(16, 6)}[kind]
    y = some_labels(16)
    with torch.no_grad():
        net(x)
    lived_in(net)
    with failing(net, 0) as calls:
        sb.diagnose(net, x, y, is_spiking=spiking)
    total = calls[0]
    assert total >= 2
    for at in sorted({1, 2, total, *random.Random(0).sample(range(1, total + 1), min(total, 8))}):
        with failing(net, at):
            before = snapshot(net, x, y)
            try:
                sb.diagnose(net, x, y, is_spiking=spiking)
            except RuntimeError as error:
                assert "the roof caved in" in str(error)  # noqa: PT017 - a pass on a copy may count no call at all
            assert_same(before, snapshot(net, x, y))
        if at == 1:
            with failing(net, 1), pytest.raises(RuntimeError, match="the roof caved in"):
                sb.diagnose(net, x, y, is_spiking=spiking)


@pytest.mark.parametrize("training", [True, False])
def test_failure_of_the_loss_and_of_the_backward_pass(make_net: MakeNet, training: bool) -> None:
    net, x, y = lived_in(make_net().train(training)), smooth_images(16), some_labels(16)

    def early(logits: Tensor, labels: Tensor) -> Tensor:
        raise RuntimeError("the roof caved in")

    def late(logits: Tensor, labels: Tensor) -> Tensor:
        def refuse(_grad: Tensor) -> Tensor:
            raise RuntimeError("the roof caved in")

        loss = mean_cross_entropy(logits, labels)
        if loss.requires_grad:
            loss.register_hook(refuse)
        return loss

    for loss in (early, late):
        before = snapshot(net, x, y)
        with pytest.raises(RuntimeError, match="the roof caved in"):
            sb.diagnose(net, x, y, loss=loss)
        assert_same(before, snapshot(net, x, y))
