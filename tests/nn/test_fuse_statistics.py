"""The running statistics of fused batch norms are `nn.BatchNorm2d`'s."""

import copy
import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import spikeback as sb
from spikeback.nn import TdBatchNorm2d, plain
from spikeback.nn.conv import over_time
from spikeback.nn.fuse import Term, fused, why_not
from spikeback.ops import native

needs_kernels = pytest.mark.skipif(not native.available(), reason="no compiled kernels")
C = 5


def fire(norm: nn.Module, y: Tensor) -> Tensor:
    term = Term(y, norm)
    assert why_not(sb.LIF(), [term]) is None
    return fused(sb.LIF(), [term], len(y))


def compose(norm: nn.Module, y: Tensor) -> Tensor:
    with plain():
        return sb.LIF()(over_time(norm, y))


@needs_kernels
@pytest.mark.parametrize("cls", [nn.BatchNorm2d, TdBatchNorm2d])
@pytest.mark.parametrize("momentum", [0.1, 1.0, 0.0, None])
def test_three_batches_leave_the_same_statistics(momentum: Any, cls: Any) -> None:
    norms = [cls(C, momentum=momentum) for _ in range(2)]
    for scale in (1.0, 3.0, 0.2):
        y = scale * torch.randn(3, 2, C, 4, 3) + torch.arange(C)[:, None, None]
        fire(norms[0], y)
        compose(norms[1], y)
    for name, expected in norms[1].named_buffers():
        torch.testing.assert_close(norms[0].get_buffer(name), expected, rtol=1e-6, atol=1e-6)
    assert norms[0].num_batches_tracked == 3


@pytest.mark.parametrize("run", [pytest.param(fire, marks=needs_kernels), compose])
@pytest.mark.parametrize("cls", [nn.BatchNorm2d, TdBatchNorm2d])
def test_without_momentum_they_are_the_mean_over_all_batches(cls: Any, run: Any) -> None:
    norm, batches = cls(C, momentum=None), [i * torch.randn(2, 3, C, 4, 4) for i in (1, 2, 5)]
    for y in batches:
        run(norm, y)
    flat = [y.movedim(2, 0).flatten(1) for y in batches]
    torch.testing.assert_close(norm.running_mean, sum(f.mean(1) for f in flat) / 3)
    torch.testing.assert_close(norm.running_var, sum(f.var(1) for f in flat) / 3)  # unbiased


@needs_kernels
@pytest.mark.parametrize("change", ["doubles", "apart", "uncounted", "uncounted, averaged"])
def test_statistics_stored_in_another_way(change: str) -> None:
    """As other data types, as every second number of a tensor, without a count of batches."""
    norms: list[Any] = [nn.BatchNorm2d(C, momentum=None if "averaged" in change else 0.3) for _ in range(2)]
    for norm in norms:
        if change == "doubles":
            norm.running_mean, norm.running_var = norm.running_mean.double(), norm.running_var.double()
        elif change == "apart":
            norm.running_mean, norm.running_var = torch.zeros(2 * C)[::2], torch.ones(2 * C)[::2]
        else:
            norm.num_batches_tracked = None
    y = 2 * torch.randn(3, 2, C, 4, 4) + 1
    fire(norms[0], y)
    flat = y.flatten(0, 1)
    norms[1].double()(flat.double())
    for name in ("running_mean", "running_var"):
        torch.testing.assert_close(norms[0].get_buffer(name).double(), norms[1].get_buffer(name), rtol=1e-6, atol=1e-6)


@needs_kernels
@pytest.mark.parametrize("affine", [True, False])
def test_a_norm_for_fewer_channels_is_an_error_and_writes_nowhere(affine: bool) -> None:
    norm, memory = nn.BatchNorm2d(2, affine=affine), torch.zeros(2, C)
    norm.running_mean, norm.running_var = memory[0, :2], memory[1, :2]
    with pytest.raises(RuntimeError, match="size"):
        fire(norm, torch.randn(2, 3, C, 4, 4) + 5)
    assert not memory.any()


@needs_kernels
def test_evaluation_changes_nothing() -> None:
    norm = nn.BatchNorm2d(C).eval()
    before = copy.deepcopy(norm.state_dict())
    fire(norm, torch.randn(2, 3, C, 4, 4))
    assert all(torch.equal(v, before[k]) for k, v in norm.state_dict().items())


@needs_kernels
def test_statistics_switched_off_afterwards_stay() -> None:
    norm = nn.BatchNorm2d(C)
    norm.track_running_stats = False
    fire(norm, torch.randn(2, 3, C, 4, 4))
    assert norm.running_mean is not None
    assert not norm.running_mean.any()
    assert norm.num_batches_tracked == 0


@needs_kernels
@pytest.mark.parametrize("cls", [nn.BatchNorm2d, TdBatchNorm2d])
def test_one_value_per_channel_is_pytorchs_error(cls: Any) -> None:
    messages = []
    for run in (fire, compose):
        norm = cls(C)
        with pytest.raises(ValueError, match="Expected more than 1 value per channel when training") as caught:
            run(norm, torch.randn(1, 1, C, 1, 1))
        messages.append(str(caught.value))
        assert not norm.running_mean.any()
    assert messages[0] == messages[1]
    assert fire(cls(C).eval(), torch.randn(1, 1, C, 1, 1)).shape == (1, 1, C, 1, 1)


@pytest.mark.parametrize("training", [True, False])
def test_an_empty_batch_passes(training: bool) -> None:
    net: Any = sb.create_model("spiking_resnet18", num_classes=5, width=4, time_steps=2).train(training)
    before = copy.deepcopy(net.state_dict())
    assert net(torch.randn(3, 0, 3, 8, 8)).shape == (3, 0, 5)
    assert net(torch.randn(0, 3, 8, 8)).shape == (2, 0, 5)
    for name, value in net.state_dict().items():
        if "num_batches" not in name:
            assert torch.equal(value, before[name]), name


@pytest.mark.parametrize("run", [pytest.param(fire, marks=needs_kernels), compose])
@pytest.mark.parametrize("training", [True, False])
def test_threshold_dependent_norm_is_its_formula(training: bool, run: Any) -> None:
    """y = alpha * V_th * (x - mean) / sqrt(variance + eps) * weight + bias, Zheng et al. 2021."""
    norm: Any = TdBatchNorm2d(C, threshold=0.75, alpha=1 / math.sqrt(2)).train(training)
    for value in (norm.weight, norm.bias, norm.running_mean):
        nn.init.normal_(value, 1.0, 0.3)
    y = 2 * torch.randn(3, 2, C, 6, 6) + 1
    mean, variance = (norm.running_mean, norm.running_var) if not training else (
        y.mean((0, 1, 3, 4)), y.var((0, 1, 3, 4), correction=0))  # fmt: skip
    mean, variance, weight, bias = (
        v.detach().double()[:, None, None] for v in (mean, variance, norm.weight, norm.bias)
    )
    normed = 0.75 / math.sqrt(2) * (y.double() - mean) / (variance + norm.eps).sqrt() * weight + bias
    expected, _ = sb.lif(normed, 0.25, 0.5, sb.surrogate.Tanh())
    assert torch.equal(run(norm, y), expected.float())
