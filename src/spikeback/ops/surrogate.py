"""Surrogate gradients g'(u, V_th): what stands in for the derivative of the firing function in the backward pass.

The forward pass always fires the exact step 1[u > V_th]. Each surrogate is a frozen value, `Triangle(gamma=1.0)`,
called as `surrogate(u, threshold)`; it returns dg/du elementwise, in u's shape and dtype.
Source of `Triangle`, `Rectangle`, `Tanh`: "Take A Shortcut Back", Eq. 4.
"""

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from spikeback.errors import UsageError
from spikeback.values import is_number


def check_constant(what: str, value: Any) -> None:
    """Raises UsageError for a tensor that requires a gradient where only constants are known: it would get none."""
    if isinstance(value, Tensor) and value.requires_grad:
        raise UsageError(f"{what} cannot be learnt: no gradient is computed for it; detach the tensor or give a number")


def as_number(what: str, value: Any) -> Any:
    """The number that a tensor without dimensions holds; what is no tensor stays as it is.

    Raises:
        UsageError: a tensor of several values, or one that requires a gradient.
    """
    if not isinstance(value, Tensor):
        return value
    if value.ndim:
        shape = tuple(value.shape)
        raise UsageError(
            f"{what} must be one number, the same for all neurons of a layer, not a tensor of shape {shape}"
        )
    check_constant(what, value)
    return value.item()


@dataclass(frozen=True)
class Surrogate:
    """Base of all surrogates: every parameter is a positive number."""

    def __post_init__(self) -> None:
        for name, given in vars(self).items():
            value = as_number(f"{type(self).__name__}: {name}", given)
            object.__setattr__(self, name, value)  # frozen for everybody else
            if isinstance(getattr(type(self), name, None), bool):
                continue  # a flag by its default
            if not is_number(value) or not 0 < value < math.inf:
                raise UsageError(f"{type(self).__name__}: {name} must be a positive number, got {value!r}")

    def __call__(self, u: Tensor, threshold: float) -> Tensor:
        raise NotImplementedError


@dataclass(frozen=True)
class Triangle(Surrogate):
    """g'(u) = gamma * max(0, 1 - |u / V_th - 1|), Eq. 4a: support (0, 2 V_th), area gamma * V_th."""

    gamma: float = 1.0

    def __call__(self, u: Tensor, threshold: float) -> Tensor:
        return self.gamma * (1 - (u / threshold - 1).abs()).clamp_min(0)


@dataclass(frozen=True)
class Rectangle(Surrogate):
    """g'(u) = 1 / a where |u - V_th| < a / 2, else 0, Eq. 4b (its "sign" read as an indicator): area 1."""

    a: float = 1.0

    def __call__(self, u: Tensor, threshold: float) -> Tensor:
        return ((u - threshold).abs() < self.a / 2).to(u.dtype) / self.a


@dataclass(frozen=True)
class Tanh(Surrogate):
    """The tanh-like surrogate, Eq. 4c.

    normalised (the authors' public code): g'(u) = k (1 - tanh^2(k (u - V_th))) / (2 tanh(k / 2))
    where |u - V_th| <= 1/2, else 0: area 1.
    not normalised (Eq. 4c as intended): g'(u) = k (1 - tanh^2(u - V_th)), area 2k. Eq. 4c as printed,
    k (1 - tanh(u - V_th))^2, tends to 4k far below the threshold, against the paper's own text.
    """

    k: float = 3.0
    normalised: bool = True

    def __call__(self, u: Tensor, threshold: float) -> Tensor:
        v = u - threshold
        if not self.normalised:
            return self.k * (1 - torch.tanh(v).square())
        g = self.k * (1 - torch.tanh(self.k * v).square()) / (2 * math.tanh(self.k / 2))
        return torch.where(v.abs() <= 0.5, g, torch.zeros_like(g))


@dataclass(frozen=True)
class Sigmoid(Surrogate):
    """g'(u) = alpha s (1 - s), s = sigmoid(alpha (u - V_th)): peak alpha / 4, area 1."""

    alpha: float = 4.0

    def __call__(self, u: Tensor, threshold: float) -> Tensor:
        s = torch.sigmoid(self.alpha * (u - threshold))
        return self.alpha * s * (1 - s)


@dataclass(frozen=True)
class ATan(Surrogate):
    """g'(u) = (alpha / 2) / (1 + (pi / 2 * alpha * (u - V_th))^2): peak alpha / 2, area 1."""

    alpha: float = 2.0

    def __call__(self, u: Tensor, threshold: float) -> Tensor:
        return (self.alpha / 2) / (1 + (math.pi / 2 * self.alpha * (u - threshold)).square())
