"""Whoever listens to a module inside a fused block hears what the module would say, and changes nothing."""

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import spikeback as sb
from spikeback.errors import UsageError
from spikeback.nn import BatchNorm2d, ConvNorm, fuse, plain
from spikeback.ops import native

pytestmark = pytest.mark.skipif(not native.available(), reason="no compiled kernels")

SHAPE = (3, 3, 8, 8)


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Grows by one with every fused operation."""
    seen: list[int] = []
    run = fuse.norm_lif
    monkeypatch.setattr(fuse, "norm_lif", lambda *args, **more: (seen.append(1), run(*args, **more))[1])
    return seen


def modules(net: nn.Module) -> dict[str, nn.Module]:
    """One of each kind at each place of a block."""
    names = ["encoder", "encoder.0", "encoder.1", "stem", "stem.0", "layer1.0", "layer1.0.conv1", "layer1.0.conv1.1",
             "layer1.0.lif1", "layer1.0.conv2.1", "layer1.0.shortcut", "layer2.0.conv2", "layer2.0.shortcut.1",
             "layer2.0.shortcut", "layer2.0.lif2", "layer2"]  # fmt: skip
    return {name: net.get_submodule(name) for name in names}


def step(net: Any, x: Tensor) -> dict[str, Tensor]:
    logits = net(x)
    logits.square().sum().backward()
    grads = {name: p.grad for name, p in net.named_parameters() if p.grad is not None}
    return {"logits": logits.detach(), **grads, **dict(net.named_buffers())}


@pytest.mark.parametrize("name", list(modules(sb.create_model("spiking_resnet18", width=4))))
def test_a_forward_hook_hears_the_module_and_changes_nothing(name: str, make_net: Any) -> None:
    x = torch.randn(SHAPE)
    heard: list[list[Tensor]] = []
    results = []
    net = make_net(neuron=sb.LIF(surrogate=sb.surrogate.Triangle()))
    for context in (None, plain):
        twin = copy.deepcopy(net)
        calls: list[Tensor] = []
        hook = lambda _, inputs, output, calls=calls: calls.extend((inputs[0].detach(), output.detach()))
        twin.get_submodule(name).register_forward_hook(hook)
        if context is None:
            results.append(step(twin, x))
        else:
            with context():
                results.append(step(twin, x))
        heard.append(calls)
    assert len(heard[0]) == len(heard[1]) == 2
    for a, b in zip(*heard, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)
    size = max(value.abs().max() for value in results[1].values())
    for key, expected in results[1].items():
        assert (results[0][key] - expected).abs().max() <= 1e-4 * expected.abs().max() + 1e-6 * size, key
    silent = step(copy.deepcopy(net), x)
    assert torch.equal(silent["logits"].argmax(-1), results[0]["logits"].argmax(-1))


@pytest.mark.parametrize("kind", ["pre", "forward", "backward", "backward pre"])
@pytest.mark.parametrize("name", ["encoder.1", "layer1.0.lif1", "layer2.0.shortcut.1", "layer2.0.conv2"])
def test_every_kind_of_hook_is_called_once(kind: str, name: str, make_net: Any) -> None:
    net = make_net()
    calls: list[Any] = []
    module = net.get_submodule(name)
    register = {
        "pre": module.register_forward_pre_hook,
        "forward": module.register_forward_hook,
        "backward": module.register_full_backward_hook,
        "backward pre": module.register_full_backward_pre_hook,
    }[kind]
    handle = register(lambda *args: calls.append(args) or None)
    net(torch.randn(SHAPE)).sum().backward()
    assert len(calls) == 1
    handle.remove()
    net(torch.randn(SHAPE)).sum().backward()
    assert len(calls) == 1


def test_a_hook_may_replace_what_the_module_puts_out(make_net: Any) -> None:
    net = make_net().eval()
    x = torch.randn(SHAPE)
    for name in ("stem.0", "layer1.0.conv1.1", "layer4.1.lif2"):
        handle = net.get_submodule(name).register_forward_hook(lambda _, __, output: torch.zeros_like(output))
        results = net(x)
        with plain():
            assert torch.equal(results, net(x))
        handle.remove()


def test_a_global_hook_is_heard_too(make_net: Any) -> None:
    net, seen = make_net(), []
    handle = nn.modules.module.register_module_forward_hook(lambda module, *_: seen.append(type(module)))
    try:
        net(torch.randn(SHAPE))
    finally:
        handle.remove()
    for cls in (sb.LIF, BatchNorm2d, ConvNorm):
        assert seen.count(cls) == sum(isinstance(m, cls) for m in net.modules())


def test_only_the_blocks_that_are_listened_to_run_as_modules(make_net: Any, runs: list[int]) -> None:
    net, x = make_net(), torch.randn(SHAPE)
    net(x)
    everywhere = len(runs)
    assert everywhere == 17  # one for each neuron of a ResNet-18
    handle = net.get_submodule("layer1.0.lif1").register_forward_hook(lambda *_: None)
    runs.clear()
    net(x)
    assert len(runs) == everywhere - 1
    handle.remove()
    runs.clear()
    net(x)
    assert len(runs) == everywhere


def test_branches_leave_no_hook_and_cost_no_fusion_at_inference(make_net: Any, runs: list[int]) -> None:
    net, x = make_net(), torch.randn(SHAPE)
    model = sb.ShortcutNet(net, "block")
    model(x, 1.0)
    assert len(runs) == 17  # blocks are tapped at their outputs: no neuron is listened to
    with pytest.raises(UsageError):
        model(torch.randn(3, 7, 8, 8), 1.0)  # a wrong number of channels
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in net.modules())
    runs.clear()
    with torch.inference_mode():
        model(x)
    assert len(runs) == 17


def test_parametrised_norm_is_not_skipped(make_net: Any) -> None:
    """torch.nn.utils.parametrize makes a subclass of the norm: its own forward has to run."""
    net = make_net()
    norm = net.get_submodule("layer1.0.conv1.1")
    nn.utils.parametrize.register_parametrization(norm, "weight", Doubled())
    results = net(torch.randn(SHAPE))
    with plain():
        assert results.shape == net(torch.randn(SHAPE)).shape
    net.eval()
    x = torch.randn(SHAPE)
    results = net(x)
    with plain():
        torch.testing.assert_close(results, net(x))


class Doubled(nn.Module):
    def forward(self, weight: Tensor) -> Tensor:
        return 2 * weight
