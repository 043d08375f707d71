"""ShortcutNet computes Eq. 6 and Eq. 10, and with weight 0 plain training, to the bit."""

import copy
from collections.abc import Callable
from typing import Any, cast

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import spikeback as sb
from spikeback.doctor import decompose
from spikeback.errors import UsageError

MakeNet = Callable[..., Any]


def gradients(net: nn.Module, logits: Tensor) -> dict[str, Tensor]:
    net.zero_grad()
    F.cross_entropy(logits.mean(0), torch.arange(logits.shape[1])).backward()
    return {name: p.grad.clone() for name, p in net.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("taps", ["stage", "block"])
@pytest.mark.parametrize("training", [True, False])
def test_output_is_eq_10_to_the_bit(make_net: MakeNet, images: Tensor, taps: str, training: bool) -> None:
    model = sb.ShortcutNet(make_net(), taps=taps).train(training)
    main, side = model.logits(images)
    assert main.shape == (2, 3, 5)
    assert all(z.shape == (2, 3, 5) for z in side.values())
    for weight in (0.25, 0.1, 1 / 3, 1.0, 2.0):
        assert torch.equal(model(images, weight), main + weight * sum(side.values()))


def test_weight_one_is_eq_6_to_the_bit(make_net: MakeNet, images: Tensor) -> None:
    model = sb.ShortcutNet(make_net())
    main, side = model.logits(images)
    assert torch.equal(model(images, sb.Shortcut()(0.3)), main + sum(side.values()))


@pytest.mark.parametrize("training", [True, False])
def test_main_logits_are_those_of_the_network_itself(make_net: MakeNet, images: Tensor, training: bool) -> None:
    net = make_net().train(training)
    twin = copy.deepcopy(net)
    model = sb.ShortcutNet(net).train(training)
    assert torch.equal(model.logits(images)[0], twin(images))
    for key, buffer in twin.named_buffers():
        assert torch.equal(buffer, net.get_buffer(key)), key


@pytest.mark.parametrize("taps", ["stage", "block", ("layer1", "layer2.0", "layer4.1")])
def test_side_is_the_linear_layer_of_the_pooled_spikes(make_net: MakeNet, images: Tensor, taps: Any) -> None:
    model = sb.ShortcutNet(make_net().double(), taps=taps).double()
    spikes: dict[str, Tensor] = {}
    for tap in model.taps:
        keep = lambda _, __, output, tap=tap: spikes.update({tap: output})
        model.net.get_submodule(tap).register_forward_hook(keep)
    _, side = model.logits(images.double())
    linears = [m for m in model.branches.modules() if isinstance(m, nn.Linear)]
    assert list(side) == list(model.taps)
    assert len(linears) == len(model.branches) == len(model.taps)
    for linear, tap in zip(linears, model.taps, strict=True):
        assert set(spikes[tap].unique().tolist()) <= {0.0, 1.0}
        expected = F.linear(spikes[tap].mean((-2, -1)), linear.weight, linear.bias)
        torch.testing.assert_close(side[tap], expected, rtol=1e-12, atol=1e-12)


def test_read_current_feeds_the_input_of_the_last_neuron(make_net: MakeNet, images: Tensor) -> None:
    model = sb.ShortcutNet(make_net().double(), taps="block", read="current").double()
    currents: dict[str, Tensor] = {}
    for tap in model.taps:
        neuron = [m for m in model.net.get_submodule(tap).modules() if isinstance(m, sb.LIF)][-1]
        keep = lambda _, inputs, __, tap=tap: currents.update({tap: inputs[0]})
        neuron.register_forward_hook(keep)
    main, side = model.logits(images.double())
    assert torch.equal(model(images.double(), 0.25), main + 0.25 * sum(side.values()))
    for linear, tap in zip([m for m in model.branches.modules() if isinstance(m, nn.Linear)], model.taps, strict=True):
        current = currents[tap].reshape(2, 3, *currents[tap].shape[-3:])
        assert current.unique().numel() > 2
        expected = F.linear(current.mean((-2, -1)), linear.weight, linear.bias)
        torch.testing.assert_close(side[tap], expected, rtol=1e-12, atol=1e-12)


def test_unknown_read_lists_the_choices(make_net: MakeNet) -> None:
    with pytest.raises(UsageError, match=r"'voltage'.*spikes.*current"):
        sb.ShortcutNet(make_net(), read=cast(Any, "voltage"))


@pytest.mark.parametrize("call", [(), (0.0,), (0,)])
def test_weight_zero_is_plain_training(make_net: MakeNet, images: Tensor, call: tuple) -> None:
    net = make_net()
    twin = copy.deepcopy(net)
    model = sb.ShortcutNet(net, taps="block")
    logits, expected = model(images, *call), twin(images)
    assert torch.equal(logits, expected)
    found, plain = gradients(model, logits), gradients(twin, expected)
    assert all(torch.equal(found["net." + name], plain[name]) for name in plain)
    assert not any(grad.any() for name, grad in found.items() if name.startswith("branches."))
    for key, buffer in twin.named_buffers():
        assert torch.equal(buffer, net.get_buffer(key)), key


def test_weight_zero_evaluates_no_branch(make_net: MakeNet, images: Tensor) -> None:
    model = sb.ShortcutNet(make_net(), taps="block")
    calls: list[str] = []
    for name, module in model.branches.named_modules():
        module.register_forward_hook(lambda _, __, ___, name=name: calls.append(name))
    model(images, 0.0)
    model(images, sb.Vanilla()(0.5), per_step=False)
    model(images, sb.Evolutionary(0.25)(1.0))
    assert not calls
    model(images, 0.25)
    assert len(set(calls)) >= len(model.taps)


def test_trunk_gradient_is_linear_in_the_weight(make_net: MakeNet, images: Tensor) -> None:
    """For a loss linear in the logits, dL/dW(weight) = dL/dW(0) + weight * (dL/dW(1) - dL/dW(0)): Eq. 9 summed."""
    model = sb.ShortcutNet(make_net().double()).double()
    x, r = images.double(), torch.randn(2, 3, 5, dtype=torch.float64)
    grads = {}
    for weight in (0.0, 0.25, 1.0):
        model.zero_grad()
        (model(x, weight) * r).sum().backward()
        grads[weight] = [p.grad.clone() for p in model.net.parameters() if p.grad is not None]
    assert not torch.equal(grads[0.0][0], grads[1.0][0])  # the stem learns from the branches
    for none, quarter, one in zip(*grads.values(), strict=True):
        torch.testing.assert_close(quarter, none + 0.25 * (one - none), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("weight", [0.0, 0.25])
def test_without_steps_logits_are_the_mean_over_time(make_net: MakeNet, images: Tensor, weight: float) -> None:
    model = sb.ShortcutNet(make_net().double()).double()
    mean = model(images.double(), weight, per_step=False)
    assert mean.shape == (1, 3, 5)
    expected = model(images.double(), weight).mean(0, keepdim=True)
    torch.testing.assert_close(mean, expected, rtol=1e-12, atol=1e-12)


def test_frames_of_any_number_are_taken(make_net: MakeNet) -> None:
    model = sb.ShortcutNet(make_net(time_steps=2))
    for steps in (1, 3):
        assert model(torch.randn(steps, 4, 3, 8, 8), 0.25).shape == (steps, 4, 5)


def test_trunk_starts_from_the_weights_of_the_vanilla_arm(make_net: MakeNet) -> None:
    torch.manual_seed(7)
    plain = make_net()
    after_plain = torch.get_rng_state()
    torch.manual_seed(7)
    model = sb.ShortcutNet(make_net(), taps="block")
    assert torch.equal(torch.get_rng_state(), after_plain)
    for key, value in plain.state_dict().items():
        assert torch.equal(value, model.net.state_dict()[key]), key


def test_branches_start_random_by_the_seed(make_net: MakeNet) -> None:
    heads = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        model = sb.ShortcutNet(make_net(), taps="block")
        heads.append([m.weight for m in model.branches.modules() if isinstance(m, nn.Linear)])
    first, again, other = heads
    assert all(w.count_nonzero() == w.numel() for w in first)
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not any(torch.equal(a, b) for a, b in zip(first, other, strict=True))
    assert not torch.equal(first[0], first[1])  # layer1.0 and layer1.1 have equal shapes, not equal weights


def test_every_parameter_learns_while_the_weight_is_positive(make_net: MakeNet, images: Tensor) -> None:
    model = sb.ShortcutNet(make_net(), taps="block")
    assert set(gradients(model, model(images, 0.25))) == {name for name, _ in model.named_parameters()}


@pytest.mark.parametrize("weight", [float("nan"), float("inf"), -1.0, -1, "1", None])
def test_lambda_out_of_range_is_refused(make_net: MakeNet, images: Tensor, weight: Any) -> None:
    model, y = sb.ShortcutNet(make_net()), torch.zeros(3).long()
    for use in (
        lambda: model(images, weight),
        lambda: model.heads(images, weight),
        lambda: decompose(model, images, y, weight),
        lambda: sb.diagnose(model, images, y, weight=weight, passes=()),
    ):
        with pytest.raises(UsageError, match="lambda"):
            use()


def test_lambda_may_be_a_tensor_or_any_real_number(make_net: MakeNet, images: Tensor) -> None:
    model = sb.ShortcutNet(make_net()).eval()
    for weight in (torch.tensor(0.5), np.float32(0.5), np.float64(0.5)):
        assert torch.equal(model(images, cast(Any, weight)), model(images, 0.5))
