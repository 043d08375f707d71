"""A wrapped network can be copied, saved, cast and compiled, and stays what it is."""

import copy
import io
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

import spikeback as sb
from spikeback.models.resnet import SpikingResNet

MakeNet = Callable[..., Any]


@pytest.fixture
def model(make_net: MakeNet) -> sb.ShortcutNet:
    return sb.ShortcutNet(make_net())


def test_deepcopy_is_equal_and_independent(model: sb.ShortcutNet, images: Tensor) -> None:
    model(images, 0.25)
    before = model.eval().logits(images)
    twin = copy.deepcopy(model)
    assert torch.equal(twin(images, 0.25), model(images, 0.25))
    with torch.no_grad():
        for p in twin.parameters():
            p.add_(1.0)
    after, changed = model.logits(images), twin.logits(images)
    assert torch.equal(after[0], before[0])
    assert not torch.equal(changed[0], before[0])
    for tap in model.taps:
        assert torch.equal(after[1][tap], before[1][tap])
        assert not torch.equal(changed[1][tap], before[1][tap])
    assert twin.strip() is not model.strip()


def test_state_dict_round_trip(model: sb.ShortcutNet, make_net: MakeNet, images: Tensor) -> None:
    model(images, 0.25)
    buffer = io.BytesIO()
    torch.save(model.state_dict(), buffer)
    buffer.seek(0)
    state = torch.load(buffer, weights_only=True)
    other = sb.ShortcutNet(make_net())
    assert not torch.equal(other.eval()(images, 1.0), model.eval()(images, 1.0))
    other.load_state_dict(state, strict=True)
    assert torch.equal(other(images, 0.25), model(images, 0.25))


def test_state_dict_without_its_branches_is_the_plain_network(
    model: sb.ShortcutNet, make_net: MakeNet, images: Tensor
) -> None:
    model(images, 0.25)
    state = model.eval().state_dict()
    assert all(key.startswith(("net.", "branches.")) for key in state)
    net = make_net()
    net.load_state_dict({k.removeprefix("net."): v for k, v in state.items() if k.startswith("net.")}, strict=True)
    assert torch.equal(net.eval()(images), model(images))


@pytest.mark.parametrize("weight", [0.0, 0.25])
def test_autocast_trains_in_bf16(model: sb.ShortcutNet, images: Tensor, weight: float) -> None:
    twin = copy.deepcopy(model.net)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logits = model(images, weight)
        main, side = model.logits(images)
        assert torch.equal(main, twin(images))
    assert all(z.dtype == torch.bfloat16 for z in (main, *side.values()))  # the branches take part in autocast
    logits.float().square().mean().backward()
    trained = model.parameters() if weight else model.net.parameters()
    for p in trained:
        assert p.grad is not None
        assert p.grad.dtype == torch.float32
        assert p.grad.isfinite().all()


# The compiler hides this warning of its own by catching it when shown, which is too late where warnings are errors.
hidden_by_torch = pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf:UserWarning")


class Counting:
    """A compiler backend that compiles nothing and counts the graphs it is given."""

    def __init__(self) -> None:
        self.graphs = 0

    def __call__(self, graph: torch.fx.GraphModule, _: list[Tensor]) -> Callable[..., Any]:
        self.graphs += 1
        return graph.forward


def three_blocks() -> sb.ShortcutNet:
    """With and without a convolution beside them, and two branches: compiling takes seconds a block."""
    net = SpikingResNet((1, 1, 1), (1, 2, 4), 5, "cifar", time_steps=2, in_channels=3, width=4, neuron=None, norm=None)
    model = sb.ShortcutNet(net)
    assert len(model.taps) == 2
    return model


@pytest.mark.slow
@hidden_by_torch
@pytest.mark.parametrize("training", [True, False])
def test_compiled_gives_the_same_logits_and_new_weights_compile_nothing(images: Tensor, training: bool) -> None:
    torch.compiler.reset()
    backend, model = Counting(), three_blocks()
    compiled = torch.compile(model.train(training), backend=backend)
    schedule = sb.Evolutionary(0.25)
    for progress in (0.0, 0.1, 1.0):  # two weights tell the compiler that it varies; 0 is the other branch of an if
        assert torch.equal(compiled(images, schedule(progress)), model(images, schedule(progress)))
    known = backend.graphs
    assert known > 0
    for progress in (0.2, 0.3, 0.4, 0.55, 0.9, 1.0):
        assert torch.equal(compiled(images, schedule(progress)), model(images, schedule(progress)))
    assert backend.graphs == known


@pytest.mark.slow
@hidden_by_torch
@pytest.mark.parametrize("weight", [0.0, 0.25])
def test_compiled_gives_the_same_gradients(images: Tensor, weight: float) -> None:
    torch.compiler.reset()
    model, x = three_blocks().double(), images.double()
    gradients = []
    for forward in (model, torch.compile(model, backend="aot_eager")):
        model.zero_grad()
        forward(x, weight).square().mean().backward()
        gradients.append({name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None})
    eager, compiled = gradients
    assert eager.keys() == compiled.keys()
    assert len(eager) == len(list((model if weight else model.net).parameters()))
    for name, gradient in eager.items():
        torch.testing.assert_close(compiled[name], gradient, rtol=1e-8, atol=1e-10, msg=name)
