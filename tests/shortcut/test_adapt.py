"""Adapters for networks whose logits are not (T, B, K): one step a call, or already averaged over time."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import spikeback as sb
from spikeback.errors import UsageError

T, B, K = 3, 2, 5


class Integrator(nn.Module):
    """A neuron with hidden state, one step a call."""

    def __init__(self) -> None:
        super().__init__()
        self.v: Tensor | float = 0.0

    def reset(self) -> None:
        self.v = 0.0

    def forward(self, x: Tensor) -> Tensor:
        self.v = 0.5 * self.v + x
        return torch.sigmoid(4 * self.v)


sb.register_stateful(Integrator, Integrator.reset)


class StepNet(nn.Module):
    """(B, C, H, W) -> (B, K), or (logits, membrane); the membrane stays until reset()."""

    def __init__(self, tuples: bool = False) -> None:
        super().__init__()
        self.conv, self.neuron, self.fc, self.tuples = nn.Conv2d(3, 4, 3), Integrator(), nn.Linear(4, K), tuples

    def forward(self, x: Tensor) -> Any:
        logits = self.fc(self.neuron(self.conv(x)).mean((-2, -1)))
        return (logits, self.neuron.v) if self.tuples else logits


class MultiStepRateNet(nn.Module):
    """(T, B, C, H, W) -> (B, K): every module once, all steps together."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.neuron, self.fc = nn.Conv3d(3, 4, (1, 3, 3)), nn.Sigmoid(), nn.Linear(4, K)

    def forward(self, x: Tensor) -> Tensor:
        y = self.neuron(self.conv(x.transpose(1, 2)).transpose(1, 2))
        return self.fc(y.mean((-2, -1))).mean(0)


class LoopRateNet(StepNet):
    """(T, B, C, H, W) -> (B, K): every module once a step."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.stack([StepNet.forward(self, x_t) for x_t in x]).mean(0)


def frames() -> Tensor:
    return torch.randn(T, B, 3, 8, 8)


def name_of(net: nn.Module, module: nn.Module) -> str:
    return next(name for name, m in net.named_modules() if m is module)


@pytest.mark.slow
@pytest.mark.parametrize("static", [True, False])
@pytest.mark.parametrize("tuples", [True, False])
def test_unrolled_runs_a_single_step_net_over_time(static: bool, tuples: bool) -> None:
    net, x = StepNet(tuples), frames()[0] if static else frames()
    steps = [net(x if static else x[t]) for t in range(T)]
    expected = torch.stack([step[0] if tuples else step for step in steps])
    net.neuron.reset()
    unrolled = sb.Unrolled(net, T)
    assert torch.equal(unrolled(x), expected)
    tap = name_of(unrolled, net.neuron)
    model = sb.ShortcutNet(unrolled, taps=[tap], num_classes=K, example=x)
    main, side = model.logits(x)
    assert torch.equal(main, expected)
    assert side[tap].shape == (T, B, K)
    assert torch.equal(model(x, 0.25), main + 0.25 * side[tap])
    assert model.strip() is unrolled


def test_unrolled_needs_a_time_step() -> None:
    with pytest.raises(UsageError, match="time_steps"):
        sb.Unrolled(StepNet(), 0)


@pytest.mark.parametrize("make", [MultiStepRateNet, LoopRateNet])
def test_time_averaged_takes_a_net_that_averages_itself(make: type[Any]) -> None:
    net, x = make(), frames()
    pooled: list[Tensor] = []
    hook = net.neuron.register_forward_hook(lambda *call: pooled.append(call[2].mean((-2, -1))))
    expected = net(x)[None]
    hook.remove()
    rates = torch.cat([p.reshape(-1, B, 4) for p in pooled]).mean(0)  # (B, C), mean over time and space
    if make is LoopRateNet:
        net.neuron.reset()
    averaged = sb.TimeAveraged(net)
    assert torch.equal(averaged(x), expected)
    tap = name_of(averaged, net.neuron)
    model = sb.ShortcutNet(averaged, taps=[tap], num_classes=K, example=x)
    main, side = model.logits(x)
    linear = next(m for m in model.branches.modules() if isinstance(m, nn.Linear))
    assert torch.equal(main, expected)
    assert torch.equal(model(x), expected)
    torch.testing.assert_close(side[tap].mean(0), linear(rates))
    mean = model(x, 0.25, per_step=False)
    assert mean.shape == (1, B, K)
    torch.testing.assert_close(mean, main + 0.25 * linear(rates))


@pytest.mark.parametrize("make", [StepNet, MultiStepRateNet])
@pytest.mark.parametrize("weight", [0.0, 0.25])
def test_logits_without_time_are_an_error_naming_both_adapters(make: type[Any], weight: float) -> None:
    x = frames()[0] if make is StepNet else frames()
    with pytest.raises(UsageError, match=r"(?s)(?=.*Unrolled)(?=.*TimeAveraged)"):
        sb.ShortcutNet(make(), taps=["neuron"], num_classes=K, example=x)(x, weight)


def test_logits_without_time_are_found_without_an_example() -> None:
    net: Any = StepNet()
    net.feature_info = [{"module": "neuron", "num_chs": 4, "reduction": 1, "kind": "block"}]
    model = sb.ShortcutNet(net, taps=["neuron"], num_classes=K)
    for weight in (0.0, 0.25):
        with pytest.raises(UsageError, match=r"(?s)(?=.*Unrolled)(?=.*TimeAveraged)"):
            model(frames()[0], weight)
