"""Surrogate derivatives against values and areas worked out by hand."""

import dataclasses
import math
from typing import Any

import pytest
import torch

from spikeback.ops import surrogate as sg

ALL = [sg.Triangle(), sg.Rectangle(), sg.Tanh(), sg.Tanh(normalised=False), sg.Sigmoid(), sg.ATan()]
TH1, SECH2 = math.tanh(1.5), [1 - math.tanh(x) ** 2 for x in (2, 1, 0, 1, 2)]


@pytest.mark.parametrize(
    ("surrogate", "threshold", "u", "expected"),
    [
        (sg.Triangle(), 0.5, [-0.25, 0, 0.125, 0.25, 0.5, 0.75, 1, 2], [0, 0, 0.25, 0.5, 1, 0.5, 0, 0]),
        (sg.Triangle(1.5), 1.0, [0, 0.5, 1, 1.5, 2, 3], [0, 0.75, 1.5, 0.75, 0, 0]),
        (sg.Rectangle(), 0.5, [-0.25, 0, 0.25, 0.5, 0.75, 1, 1.25], [0, 0, 1, 1, 1, 0, 0]),  # strictly inside
        (sg.Rectangle(2.0), 1.0, [0, 0.125, 1, 1.875, 2], [0, 0.5, 0.5, 0.5, 0]),
        (sg.Tanh(), 0.5, [-0.01, 1.01], [0, 0]),
        (sg.Tanh(), 0.5, [0, 0.5, 1], [3 * (1 - TH1**2) / (2 * TH1), 3 / (2 * TH1), 3 * (1 - TH1**2) / (2 * TH1)]),
        (sg.Tanh(), 1.0, [0.25, 0.5, 1, 1.5, 1.75], [0, *[3 * s / (2 * TH1) for s in (1 - TH1**2, 1, 1 - TH1**2)], 0]),
        (sg.Tanh(1.0, normalised=False), 0.5, [-1.5, -0.5, 0.5, 1.5, 2.5], SECH2),
        (sg.Tanh(2.0, normalised=False), 0.5, [-1.5, -0.5, 0.5, 1.5, 2.5], [2 * s for s in SECH2]),
        (sg.Sigmoid(), 0.5, [0.5 - math.log(3) / 4, 0.5, 0.5 + math.log(3) / 4], [0.75, 1, 0.75]),
        (sg.Sigmoid(2.0), 1.0, [1, 1 + math.log(3) / 2], [0.5, 0.375]),
        (sg.ATan(), 0.5, [0.5 - 1 / math.pi, 0.5, 0.5 + 1 / math.pi], [0.5, 1, 0.5]),
        (sg.ATan(1.0), 1.0, [1, 1 + 2 / math.pi], [0.5, 0.25]),
    ],
    ids=str,
)
def test_values_are_those_worked_out_by_hand(surrogate: Any, threshold: float, u: list, expected: list) -> None:
    assert surrogate(torch.tensor(u, dtype=torch.float64), threshold).tolist() == pytest.approx(
        expected, rel=1e-12, abs=1e-15
    )


@pytest.mark.parametrize(("k", "peak", "edge"), [(3.0, 1.657, 0.299), (5.0, 2.534, 0.067)])
def test_normalised_tanh_has_the_peak_and_edge_of_the_authors_code(k: float, peak: float, edge: float) -> None:
    value = sg.Tanh(k)(torch.tensor([0.5, 0.0, 1.0]), 0.5)
    assert value.tolist() == pytest.approx([peak, edge, edge], abs=5e-4)


@pytest.mark.parametrize(
    ("surrogate", "threshold", "area"),
    [
        (sg.Triangle(), 0.5, 0.5),  # gamma * V_th: base 2 V_th, height gamma
        (sg.Triangle(1.5), 1.0, 1.5),
        (sg.Rectangle(), 0.5, 1.0),
        (sg.Rectangle(0.5), 1.0, 1.0),
        (sg.Tanh(), 0.5, 1.0),
        (sg.Tanh(5.0), 1.0, 1.0),
        (sg.Tanh(1.5, normalised=False), 0.5, 2 * 1.5 * math.tanh(4)),
        (sg.Sigmoid(), 0.5, math.tanh(4.0 * 4 / 2)),
        (sg.ATan(), 0.5, 2 / math.pi * math.atan(math.pi / 2 * 2.0 * 4)),
    ],
    ids=str,
)
def test_area_is_the_integral_of_the_formula(surrogate: Any, threshold: float, area: float) -> None:
    width = 2.0**-14  # midpoint rule over threshold +- 4: exact where g' is linear, error ~ width^2 elsewhere
    u = threshold - 4 + width * (torch.arange(2**17).double() + 0.5)
    assert float(surrogate(u, threshold).sum() * width) == pytest.approx(area, rel=1e-7)


@pytest.mark.parametrize("surrogate", ALL, ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_shape_and_dtype_are_those_of_u(surrogate: Any, dtype: torch.dtype) -> None:
    out = surrogate(torch.randn(2, 3, 4, dtype=dtype), 0.5)
    assert out.shape == (2, 3, 4)
    assert out.dtype == dtype


@pytest.mark.parametrize("surrogate", ALL, ids=str)
def test_far_from_the_threshold_nothing_overflows(surrogate: Any) -> None:
    assert surrogate(torch.tensor([-1e30, -1e4, 1e4, 1e30]), 0.5).tolist() == pytest.approx([0] * 4, abs=1e-8)


@pytest.mark.parametrize("surrogate", ALL, ids=str)
def test_is_symmetric_about_the_threshold(surrogate: Any) -> None:
    distance = torch.linspace(0, 2, 257, dtype=torch.float64)
    torch.testing.assert_close(surrogate(0.5 + distance, 0.5), surrogate(0.5 - distance, 0.5), rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("surrogate", ALL, ids=str)
def test_is_a_frozen_value(surrogate: Any) -> None:
    assert dataclasses.replace(surrogate) == surrogate
    assert hash(dataclasses.replace(surrogate)) == hash(surrogate)
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(surrogate, dataclasses.fields(surrogate)[0].name, 9.0)


def test_defaults() -> None:
    assert sg.Triangle() == sg.Triangle(gamma=1.0)
    assert sg.Rectangle() == sg.Rectangle(a=1.0)
    assert sg.Tanh() == sg.Tanh(k=3.0, normalised=True)
    assert sg.Sigmoid() == sg.Sigmoid(alpha=4.0)
    assert sg.ATan() == sg.ATan(alpha=2.0)
