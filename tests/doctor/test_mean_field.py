"""Gain and critical height without a network, against arithmetic and against deep networks."""

import math
import statistics
from typing import Any

import pytest

import spikeback as sb
from spikeback.doctor.adapters.neurons import spiking_layers
from spikeback.doctor.theory.gain import relu_twin
from spikeback.doctor.theory.mean_field import critical_height, fixed_rate, mean_field, population, relu_mean_field
from spikeback.errors import UsageError

from .gains import SURROGATES, batch, known, measured, spiking_net


def test_mean_field_is_the_measured_ratio_of_a_resnet34() -> None:
    """Triangle of height 1, threshold 0.5, default initialisation: last block to first 6e-4; critical at about 1.3."""
    gain = mean_field(SURROGATES["triangle"], 0.5)
    assert fixed_rate(0.5) == pytest.approx(0.5)
    assert gain == pytest.approx(0.608, abs=1e-3)
    assert gain**15 == pytest.approx(6e-4, rel=0.1)
    assert critical_height(SURROGATES["triangle"], 0.5) == pytest.approx(1.33, abs=0.005)


def test_the_second_moment_of_a_triangle_by_hand() -> None:
    """gain^2 = c h^2 (1 + c h^2 / (V_inner V_x)): c by Simpson's rule, on half the triangle."""
    u = [k / 2000 for k in range(1001)]
    weights = [1, *[4 if k % 2 else 2 for k in range(1, 1000)], 1]
    density = lambda z: math.exp(-z * z / 2) / math.sqrt(2 * math.pi)
    c = sum(w * 4 * z * z * (density(z) + density(1 - z)) for w, z in zip(weights, u, strict=True)) / 6000
    quiet = math.erfc(0.5 / math.sqrt(2)) / 2
    for height in (1.0, 1.3):
        expected = math.sqrt(c * height**2 * (1 + c * height**2 / (quiet * (1 - quiet) * 0.25)))
        assert mean_field(SURROGATES["triangle"], 0.5, height=height) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("time_steps", [1, 3])
@pytest.mark.parametrize("surrogate", SURROGATES.values(), ids=SURROGATES)
def test_the_gain_is_one_at_the_critical_height(surrogate: sb.surrogate.Surrogate, time_steps: int) -> None:
    options: dict[str, Any] = {"time_steps": time_steps, "neurons": 20_000}
    height = critical_height(surrogate, 1.0, **options)
    assert mean_field(surrogate, 1.0, height=height, **options) == pytest.approx(1, abs=1e-4)


@pytest.mark.parametrize("threshold", [0.5, 1.0])
@pytest.mark.parametrize("surrogate", SURROGATES.values(), ids=SURROGATES)
@pytest.mark.parametrize("time_steps", [1, 4])
def test_mean_field_is_what_deep_identity_blocks_do(
    surrogate: sb.surrogate.Surrogate, threshold: float, time_steps: int
) -> None:
    net = spiking_net(
        "spiking_resnet34", time_steps=time_steps, neuron=sb.LIF(threshold=threshold, surrogate=surrogate)
    )
    blocks = ["layer3.1", "layer3.2", "layer3.3", "layer3.4"]
    gain = statistics.mean(measured(net, *batch(), blocks).values())
    theory = mean_field(surrogate, threshold, time_steps=time_steps, neurons=20_000)
    assert theory == pytest.approx(gain, rel=0.15)


def test_one_step_simulated_is_one_step_integrated() -> None:
    lif = sb.LIF(surrogate=SURROGATES["triangle"])
    group = population(lif, 1)
    assert group.outer[1].mean() == pytest.approx(0.5, abs=0.01)
    chi = [known(lif).derivative(u).square().mean().item() for u, _ in (group.inner, group.outer)]
    assert math.sqrt(chi[1] * (1 + chi[0] / group.spread)) == pytest.approx(0.608, abs=0.01)


def test_the_gains_of_relu_fall_to_one_and_those_of_its_twin_with_them() -> None:
    theory = relu_mean_field(30)
    x_variance = 0.5 - 0.5 / math.pi
    assert theory[0] == pytest.approx(math.sqrt(0.625 * (1 + 0.5 / x_variance**2)), rel=0.01)
    assert theory == sorted(theory, reverse=True)
    assert 1 < theory[-1] < 1.03
    net = spiking_net(time_steps=1)
    twin = relu_twin(net, list(spiking_layers(net)))
    assert twin is not None
    gains = measured(twin, *batch(), ["layer1.0", "layer1.1"])
    assert list(gains.values()) == pytest.approx(theory[:2], rel=0.15)


def test_mistakes_are_named() -> None:
    with pytest.raises(UsageError, match="time_steps"):
        mean_field(SURROGATES["triangle"], 0.5, time_steps=0)
    with pytest.raises(UsageError, match="no height"):
        critical_height(sb.surrogate.Triangle(1e-9), 0.5)
