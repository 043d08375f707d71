"""Networks broken on purpose, a sound one, and some steps of training for each."""

import copy
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import spikeback as sb
from spikeback.data.sets.embedded import load_embedded

from .cases import mean_cross_entropy, residual_net

S = sb.surrogate
BATCH, HELD_OUT = 32, 128


@cache
def embedded(size: int = 10) -> tuple[Tensor, Tensor]:
    """4096 + 256 images of the embedded set, (N, 1, size, size), zero mean and unit variance, and their labels."""
    train = load_embedded().train
    chosen = torch.randperm(len(train.labels), generator=torch.Generator().manual_seed(0))[: 4096 + 256]
    x = F.adaptive_avg_pool2d(train.images[chosen].float() / 255, size)
    return (x - x.mean()) / x.std(), train.labels[chosen]


def positive(x: Tensor) -> Tensor:
    """The same images in [0.2, 1]: currents of positive weights lie between bounds."""
    return 0.2 + 0.8 * (x - x.min()) / (x.max() - x.min())


class Integrating(nn.Module):
    """Images (B, 1, H, W) -> (T, B, K) through convolutions of positive weights, no norm: a current of at most 0.6
    a step into the first layer and 0.72 into the others, against a threshold of 0.8: spikes take several steps."""

    def __init__(self, neuron: nn.Module, width: int = 16, steps: int = 8, layers: int = 3) -> None:
        super().__init__()
        self.steps = steps
        self.blocks = nn.ModuleList()
        for i in range(layers):
            conv = nn.Conv2d(width if i else 1, width, 3, 1 + (i > 0), padding=1, bias=False)
            with torch.no_grad():
                conv.weight.abs_().mul_((0.72 if i else 0.6) / conv.weight.sum((1, 2, 3), keepdim=True))
            self.blocks.append(nn.Sequential(Merged(conv), copy.deepcopy(neuron)))
        self.fc = nn.Linear(width, 10)

    def forward(self, x: Tensor) -> Tensor:
        z = x.expand(self.steps, *x.shape)
        for block in self.blocks:
            z = block(z)
        return self.fc(z.mean((-2, -1)))


class Merged(nn.Sequential):
    """A layer for images on every time step."""

    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input.flatten(0, 1)).unflatten(0, input.shape[:2])


def unnormalised(scale: float, absolute: bool = False) -> nn.Module:
    """No norm, convolutions `scale` times their usual size; `absolute`: and all of them positive."""
    net = residual_net((2, 2, 2), norm=nn.Identity(), neuron=sb.LIF(0.25, 0.5, S.Triangle(1.0)))
    with torch.no_grad():
        for conv in (m for m in net.modules() if isinstance(m, nn.Conv2d)):
            conv.weight.mul_(scale)
            if absolute:
                conv.weight.abs_()
    return net


def integrating(tau: float) -> nn.Module:
    torch.manual_seed(0)
    return Integrating(sb.LIF(tau, 0.8, S.Triangle(1.0)))


def fifty_blocks() -> nn.Module:
    """50 residual blocks, each of which passes the gradient on with gain 1."""
    net = residual_net((17, 17, 16), time_steps=1, neuron=sb.LIF(0.25, 0.5, S.Triangle(1.3)))
    x, y = embedded(8)
    sb.calibrate(net, x[:128], y[:128])
    return net


def sound() -> nn.Module:
    """Two blocks whose gradient and fidelity are calibrated."""
    net = residual_net((1, 1), width=16, neuron=sb.LIF(0.25, 0.5, S.Triangle(1.3)))
    x, y = embedded()
    sb.calibrate(net, x[:128], y[:128], fidelity=0.9)
    return net


@dataclass(frozen=True)
class Case:
    make: Callable[[], nn.Module]
    kinds: tuple[str, ...]
    cause: str  # a pattern that the cause matches
    size: int = 10
    positive: bool = False
    steps: int = 40  # after which the remedy has lowered the loss

    def data(self, start: int, count: int) -> tuple[Tensor, Tensor]:
        x, y = embedded(self.size)
        x = positive(x) if self.positive else x
        return x[start : start + count], y[start : start + count]


def with_neuron(threshold: float, surrogate: Any) -> Callable[[], nn.Module]:
    return lambda: residual_net((2, 2, 2), neuron=sb.LIF(0.25, threshold, surrogate))


UNFIT = ("saturated", "exploding", "vanishing", "chaotic")
BROKEN = {
    "threshold too high": Case(with_neuron(20.0, S.Triangle(1.0)), ("dead",), "threshold"),
    "surrogate too low": Case(with_neuron(0.5, S.Triangle(0.3)), ("vanishing",), "surrogate"),
    "rectangle too narrow": Case(with_neuron(0.5, S.Rectangle(0.1)), ("exploding",), "surrogate|width"),
    "no memory": Case(lambda: integrating(0.0), ("dead",), r"\btau\b|leak", positive=True),
    "weights too small": Case(lambda: unnormalised(0.01), ("dead",), "initiali|weight"),
    "weights too large": Case(lambda: unnormalised(100.0), UNFIT, "initiali|weight"),
    "weights too large and positive": Case(
        lambda: unnormalised(100.0, True), ("saturated",), "initiali|weight", positive=True
    ),
    "fifty blocks": Case(fifty_blocks, ("chaotic",), "depth|deep|residual|norm|fidelity|noise", size=8, steps=20),
}
SOUND = Case(sound, ("healthy",), "")


@cache
def made(case: Case) -> nn.Module:
    return case.make()


def net_of(case: Case) -> nn.Module:
    """A copy of the network: whoever gets it may change it."""
    return copy.deepcopy(made(case))


@cache
def diagnosis_of(case: Case) -> Any:
    return sb.diagnose(made(case), *case.data(0, HELD_OUT))


@cache
def treated(case: Case) -> tuple[nn.Module, Any]:
    """The network after the first remedy, and that remedy."""
    remedy = diagnosis_of(case).verdict.remedies[0]
    return remedy.apply(net_of(case), *case.data(0, HELD_OUT)), remedy


def loss_after_training(net: nn.Module, case: Case, lr: float = 0.1) -> float:
    """Loss of the main logits on 256 held-out images, batch statistics, after the case's steps of SGD on a copy.

    A ShortcutNet trains as it is meant to: evolutionary, from weight 0.25 to 0.
    """
    net = copy.deepcopy(net).train()
    optimiser = torch.optim.SGD([p for p in net.parameters() if p.requires_grad], lr)
    schedule = sb.Evolutionary(0.25)
    for step in range(case.steps):
        x, y = case.data(step * BATCH, BATCH)
        logits = net(x, schedule(step / case.steps)) if isinstance(net, sb.ShortcutNet) else net(x)
        optimiser.zero_grad()
        mean_cross_entropy(logits, y).backward()
        optimiser.step()
    with torch.no_grad():
        x, y = case.data(4096, 256)
        return mean_cross_entropy(net(x), y).item()
