"""The gain of a residual block without a network: a very deep, very wide one at the fixed point of its forward pass.

Blocks o = g(f(x) + x) with f = conv-norm-LIF-conv-norm and an identity shortcut (Eq. 5), many in a row. Batch norm
makes the current of the inner neurons Gaussian, N(0, 1), and that of the outer ones N(0, 1) plus the incoming spike.
Backwards, a neuron passes on chi = E[g'^2] of the power, a convolution with batch norm 1 / V, V being the variance of
the spikes that enter it (sigma^2 = |w|^2 V of an output channel), and the two paths add up:

    gain^2 = chi_outer (1 + chi_inner / (V_inner V_x)).

The rate r at the fixed point for T = 1, with Q the upper tail of the normal distribution: a neuron fires with
probability Q(V_th - 1) if the incoming spike is there and Q(V_th) if not, so r = r Q(V_th - 1) + (1 - r) Q(V_th).
For T > 1 the currents are Gaussian processes with the covariance over time of the spikes about their mean over all
time steps, normalised as batch norm does; a population of neurons is simulated from block to block, and the gain is
the square root of the leading eigenvalue of the map from K to K (`jacobian.time_map`): many blocks below the output.

After Poole et al., NeurIPS 2016, and Schoenholz et al., ICLR 2017; of batch norm Yang et al., "A Mean Field Theory of
Batch Normalization", ICLR 2019; of paths that add up Chen et al., IEEE TPAMI 2020 (block dynamical isometry).
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from spikeback.doctor.adapters.neurons import Neuron, neuron_of
from spikeback.doctor.theory.jacobian import time_map
from spikeback.errors import UsageError
from spikeback.nn import LIF
from spikeback.ops.surrogate import Surrogate

SETTLED = 40  # blocks after which rates and covariances stand still: what is left of the start halves in each


def mean_field(
    surrogate: Surrogate,
    threshold: float,
    tau: float = 0.25,
    time_steps: int = 1,
    *,
    height: float = 1.0,
    detach_reset: bool = False,
    neurons: int = 100_000,
    seed: int = 0,
) -> float:
    """The gain of an identity block at the fixed point.

    Args:
        surrogate: derivative of the firing function of all neurons.
        threshold: V_th.
        tau: leak.
        time_steps: T; at 1 the result is exact, beyond it has an error of some 0.3 percent.
        height: a factor on the surrogate's derivative.
        detach_reset: cut the gradient through the reset.
        neurons: how many are simulated.
        seed: of the simulation.
    """
    return _gain(surrogate, threshold, tau, time_steps, detach_reset, neurons, seed)(height)


def critical_height(
    surrogate: Surrogate,
    threshold: float,
    tau: float = 0.25,
    time_steps: int = 1,
    *,
    detach_reset: bool = False,
    neurons: int = 100_000,
    seed: int = 0,
) -> float:
    """The factor on the surrogate's derivative at which the gain is 1; arguments as `mean_field`.

    Raises:
        UsageError: no factor between 1/1000 and 1000 does it.
    """
    gain = _gain(surrogate, threshold, tau, time_steps, detach_reset, neurons, seed)
    low, high = 1e-3, 1e3
    if not gain(low) < 1 < gain(high):
        raise UsageError(f"no height of {surrogate} at threshold {threshold} passes the gradient on with gain 1")
    while high / low > 1 + 1e-6:
        middle = math.sqrt(low * high)
        low, high = (middle, high) if gain(middle) < 1 else (low, middle)
    return math.sqrt(low * high)


def relu_mean_field(blocks: int, *, neurons: int = 100_000, seed: int = 0) -> list[float]:
    """The gains of the first `blocks` identity blocks of the same network with ReLU instead of LIF, in network order.

    No fixed point there: what a block passes on has no upper bound, V_x grows with depth, so a branch counts for less
    and less and the gain tends to 1, where spikes forget all but one bit in every block. chi_inner is 1/2 and
    V_inner = Var(relu(z)) = 1/2 - 1/(2 pi) for z from N(0, 1).
    """
    generator = torch.Generator().manual_seed(seed)
    normal = lambda: torch.randn(neurons, generator=generator, dtype=torch.float64)
    x, gains = normal().relu(), []
    for _ in range(blocks):
        current = normal() + x
        branch = 0.5 / ((0.5 - 0.5 / math.pi) * x.var().item())
        gains.append(math.sqrt((current > 0).double().mean().item() * (1 + branch)))
        x = current.relu()
    return gains


def fixed_rate(threshold: float) -> float:
    """The rate r at which identity blocks fire at the fixed point for T = 1."""
    silent, driven = _tail(threshold), _tail(threshold - 1)
    return silent / (1 - driven + silent)


@dataclass(frozen=True)
class Population:
    """Neurons of a block at the fixed point: membranes and spikes, (T, N), inside the branch and behind the addition.

    spread: V_inner V_x, the variances of the spikes that enter the two convolutions.
    """

    inner: tuple[Tensor, Tensor]
    outer: tuple[Tensor, Tensor]
    spread: float


def population(lif: LIF, time_steps: int, neurons: int = 100_000, seed: int = 0) -> Population:
    """Simulate identity blocks of such neurons, from a static image on, until nothing changes from block to block."""
    generator = torch.Generator().manual_seed(seed)
    neuron = _neuron(lif)
    normal = lambda: torch.randn(time_steps, neurons, generator=generator)
    x = _fire(lif, normal()[:1].expand(time_steps, -1))
    for _ in range(SETTLED):
        x = _block(lif, x, normal)[1][1]
    (inner, s), (outer, o), spread = _block(lif, x, normal)
    return Population((neuron.membrane(inner, s), s), (neuron.membrane(outer, o), o), spread)


Driven = tuple[Tensor, Tensor]  # currents and the spikes they gave, (T, N) each


def _block(lif: LIF, x: Tensor, normal: Callable[[], Tensor]) -> tuple[Driven, Driven, float]:
    """The neurons inside the branch and behind the addition, for incoming spikes x, (T, N), and V_inner V_x."""
    root_x, V_x = _covariance(x)
    inner = root_x @ normal()
    s = _fire(lif, inner)
    root_s, V_s = _covariance(s)
    outer = root_s @ normal() + x
    return (inner, s), (outer, _fire(lif, outer)), V_s * V_x


def _gain(
    surrogate: Surrogate, threshold: float, tau: float, time_steps: int, detach_reset: bool, neurons: int, seed: int
) -> Callable[[float], float]:
    """The gain as a function of the height."""
    lif = LIF(tau, threshold, surrogate, detach_reset)
    if time_steps < 1:
        raise UsageError(f"time_steps must be at least 1, got {time_steps}")
    if time_steps == 1:
        rate, quiet = fixed_rate(threshold), _tail(threshold)
        inner = _second_moment(surrogate, threshold, 0.0)
        outer = rate * _second_moment(surrogate, threshold, 1.0) + (1 - rate) * inner
        branch = inner / (quiet * (1 - quiet) * rate * (1 - rate))
        return lambda height: math.sqrt(outer * height**2 * (1 + branch * height**2))
    group, neuron = population(lif, time_steps, neurons, seed), _neuron(lif)

    def gain(height: float) -> float:
        lif.gain.fill_(height)
        inner, outer = (
            time_map(*pair, neuron, neurons).flatten(2).flatten(0, 1).double() for pair in (group.inner, group.outer)
        )
        step = (torch.eye(time_steps**2, dtype=torch.float64) + inner / group.spread) @ outer  # K -> K, (T*T, T*T)
        return math.sqrt(torch.linalg.eigvals(step).abs().max().item())

    return gain


def _second_moment(surrogate: Surrogate, threshold: float, mean: float) -> float:
    """E[g'(u)^2], u from N(mean, 1)."""
    z = torch.linspace(-9, 9, 180_001, dtype=torch.float64)
    density = (-z.square() / 2).exp() / math.sqrt(2 * math.pi)
    return torch.trapezoid(surrogate(z + mean, threshold).square() * density, z).item()


def _covariance(spikes: Tensor) -> tuple[Tensor, float]:
    """Of spikes (T, N) about their mean over time and neurons: the root of their covariance over time, normalised as
    batch norm does it, (T, T), and what it was divided by, the variance V.
    """
    z = spikes - spikes.mean()
    variance = z.square().mean().item()
    values, vectors = torch.linalg.eigh((z @ z.T / z.shape[1] / max(variance, 1e-12)).double())
    return (vectors * values.clamp_min(0).sqrt()).float(), variance


@torch.no_grad()
def _fire(lif: LIF, current: Tensor) -> Tensor:
    spikes = lif(current.contiguous())
    assert isinstance(spikes, Tensor)
    return spikes


def _neuron(lif: LIF) -> Neuron:
    neuron = neuron_of(lif)
    assert neuron is not None
    return neuron


def _tail(z: float) -> float:
    """Q(z), the probability that a standard normal variable exceeds z."""
    return math.erfc(z / math.sqrt(2)) / 2
