"""Every network with fused blocks is the network of plain modules."""

import copy
import pickle
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import spikeback as sb
from spikeback.nn import TdBatchNorm2d, fuse, plain
from spikeback.ops import native

pytestmark = pytest.mark.skipif(not native.available(), reason="no compiled kernels")

NEURON = sb.LIF(surrogate=sb.surrogate.Triangle(1.3))
IMAGES, FRAMES = (3, 3, 16, 16), (2, 3, 3, 16, 16)


@pytest.fixture(autouse=True)
def calls(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Any]]:
    """The results of all calls of the fused operation: a test that compares plain with plain shows nothing."""
    seen: list[Any] = []
    run = fuse.norm_lif
    monkeypatch.setattr(fuse, "norm_lif", lambda *args, **more: (seen.append(args[0].shape), run(*args, **more))[1])
    yield seen
    assert seen


def make(name: str, **options: Any) -> Any:
    return sb.create_model(name, num_classes=5, **{"width": 4, "time_steps": 2, "neuron": NEURON, **options})


def train(net: nn.Module, x: Tensor) -> dict[str, Tensor]:
    """Logits, gradients and buffers after a forward and a backward pass."""
    x = x.detach().requires_grad_()
    logits = net(x)
    (logits * torch.arange(5.0).sub(1.5)).sum().backward()
    results = {"logits": logits.detach(), "x": x.grad}
    results |= {name: p.grad for name, p in net.named_parameters()} | dict(net.named_buffers())
    return {name: value for name, value in results.items() if value is not None}


def differences(net: nn.Module, x: Tensor) -> list[str]:
    """What differs by more than rounding between a pass through fused blocks and one through modules."""
    twin = copy.deepcopy(net)
    results = train(net, x)
    with plain():
        expected = train(twin, x)
    assert results.keys() == expected.keys()
    size = max(value.abs().max() for value in expected.values() if value.is_floating_point())
    close = lambda a, b: (a - b).abs().max() <= 1e-4 * b.abs().max() + 1e-7 * size
    return [name for name, value in results.items() if not close(value.double(), expected[name].double())]


@pytest.mark.parametrize("shape", [IMAGES, FRAMES], ids=["images", "frames"])
@pytest.mark.parametrize("name", sb.list_models())
def test_a_training_step_is_the_same(name: str, shape: tuple[int, ...]) -> None:
    """Batch statistics differ in the last digit, so one membrane in some million may cross the threshold: other seeds
    must agree then. What is wrong is wrong for every seed."""
    shape = (*shape[:-2], 32, 32) if "vgg" in name else shape
    for seed in range(3):
        torch.manual_seed(seed)
        if not (found := differences(make(name), torch.randn(shape))):
            return
    pytest.fail(f"{name} differs in {found}")


def exact(net: nn.Module) -> nn.Module:
    """Numbers of few binary digits everywhere, in evaluation: no rounding, so no excuse."""
    net.eval()
    for module in net.modules():
        if isinstance(module, nn.Conv2d):
            module.weight.data = torch.randint(-8, 9, module.weight.shape) / 8
            module.weight.data *= (torch.rand_like(module.weight) < 8 / module.weight[0].numel()).float()
        elif isinstance(module, nn.BatchNorm2d):
            assert module.running_mean is not None
            assert module.running_var is not None
            module.eps = 0.0
            module.running_mean.copy_(torch.randint(-2, 3, module.running_mean.shape) / 8)
            module.running_var.copy_(4.0 ** torch.randint(-1, 2, module.running_var.shape))
            module.weight.data = 2.0 ** torch.randint(-1, 2, module.weight.shape)
            module.bias.data = torch.randint(0, 4, module.bias.shape) / 8
    return net


@pytest.mark.parametrize("norm", [None, TdBatchNorm2d(1, threshold=0.5, alpha=1.0)], ids=["batch norm", "tdBN"])
@pytest.mark.parametrize("name", sb.list_models())
def test_evaluation_is_equal_to_the_bit(name: str, norm: nn.Module | None) -> None:
    net: Any = exact(make(name, norm=norm, in_channels=1))
    x = torch.randint(-16, 17, (2, 2, 1, 32, 32)) / 16
    for given in (x, x[0]):
        with torch.no_grad():
            logits = net(given)
            with plain():
                assert torch.equal(logits, net(given))
    if norm is None:
        assert logits.std(1).max() > 0  # spikes reach the end


def test_mean_over_time_is_that_of_the_logits() -> None:
    net: Any = make("spiking_resnet18")
    for x in (torch.randn(IMAGES), torch.randn(3, *IMAGES)):
        net.eval()
        rates = net(x, per_step=False)
        assert rates.shape == (1, 3, 5)
        torch.testing.assert_close(rates, net(x).mean(0, keepdim=True))
        model = sb.ShortcutNet(net, "block")
        assert model(x, 0.25, per_step=False).shape == (1, 3, 5)
        torch.testing.assert_close(model(x, 0.25, per_step=False), model(x, 0.25).mean(0, keepdim=True))
        torch.testing.assert_close(model(x, per_step=False), rates)


def test_branches_read_what_they_read_in_the_plain_net() -> None:
    for read in ("spikes", "current"):
        model = sb.ShortcutNet(exact(make("spiking_resnet18")), "block", read=read)
        x = torch.randint(-16, 17, IMAGES) / 16
        with torch.no_grad():
            main, side = model.logits(x)
            with plain():
                main_plain, side_plain = model.logits(x)
        assert torch.equal(main, main_plain)
        for tap, value in side.items():
            assert torch.equal(value, side_plain[tap]), tap


def test_copies_pickles_and_names_are_those_of_modules() -> None:
    net: Any = make("spiking_resnet18")
    x = torch.randn(IMAGES)
    before = list(net.state_dict())
    logits = net(x)
    twins = [copy.deepcopy(net), pickle.loads(pickle.dumps(net)), make("spiking_resnet18")]
    twins[-1].load_state_dict(net.state_dict())
    assert list(net.state_dict()) == before
    net.eval()
    for twin in twins:
        assert torch.equal(twin.eval()(x), net(x))
    assert logits.requires_grad


def test_autocast_keeps_the_membrane_in_float32() -> None:
    """Spikes and convolutions in bfloat16; what the neurons sum up is exact where bfloat16 would round."""
    net: Any = make("spiking_resnet18").train()
    x = torch.randn(IMAGES)
    dtypes: set[torch.dtype] = set()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        net.layer1.register_forward_hook(lambda _, inputs, output: dtypes.update((inputs[0].dtype, output.dtype)))
        logits = net(x)
    logits.float().square().sum().backward()
    assert dtypes == {torch.bfloat16}
    for name, p in net.named_parameters():
        assert p.grad is not None, name
        assert p.grad.dtype == torch.float32
        assert p.grad.isfinite().all(), name
    for name, b in net.named_buffers():
        assert b.dtype == (torch.int64 if "num_batches" in name else torch.float32), name
    current = torch.full((2, 1, 1, 1, 1), 0.25).bfloat16()
    current[1] += 0.25 * 2**-7  # 0.5 * 0.25 + this: 2^-9 more digits than bfloat16 holds
    _, membrane = sb.lif(current, 0.5, 0.9, sb.surrogate.Triangle())
    assert membrane.dtype == torch.float32
    assert membrane.item() == 0.5 * 0.25 + 0.25 + 0.25 * 2**-7
