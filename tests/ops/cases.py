"""Calls of the four primitives, what the reference makes of them, and the layouts they come in."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

import spikeback as sb
from spikeback.ops.lif import reference
from spikeback.ops.surrogate import Surrogate

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
TRIANGLE = (0, 1.0, sb.surrogate.Triangle(1.0))
EXACT = [TRIANGLE, (0, 1.3, sb.surrogate.Triangle(1.3)),
         (1, 2.0, sb.surrogate.Rectangle(2.0)), (1, 1.1, sb.surrogate.Rectangle(1.1)),
         (5, 2.0, sb.surrogate.ATan(2.0)), (5, 1.3, sb.surrogate.ATan(1.3))]  # fmt: skip
SMOOTH = [(2, 3.0, sb.surrogate.Tanh(3.0)), (2, 1.7, sb.surrogate.Tanh(1.7)), (3, 3.0, sb.surrogate.Tanh(3.0, False)),
          (4, 4.0, sb.surrogate.Sigmoid(4.0)), (5, 2.0, sb.surrogate.ATan(2.0))]  # fmt: skip
TAU, THRESHOLD = 0.5, 0.5


def dyadic(*shape: int, unit: int = 64) -> Tensor:
    """Random multiples of 1/64 in [-1, 2): exact in bf16, and so are their sums and halves in float32."""
    return torch.randint(-unit, 2 * unit, shape) / unit


def channels_last(x: Tensor) -> Tensor:
    return x.movedim(2, -1).contiguous().movedim(-1, 2)


FORMATS: dict[str, Callable[[Tensor], Tensor]] = {
    "contiguous": torch.Tensor.contiguous,
    "channels last": channels_last,
    "every second step of channels last": lambda x: channels_last(x.repeat_interleave(2, 0))[::2],
    "every second step": lambda x: x.repeat_interleave(2, 0)[::2],
    "not dense": lambda x: x.repeat_interleave(2, -1)[..., ::2],
}


class Case:
    """The arguments of one call, and what the reference makes of them on the CPU."""

    def __init__(
        self,
        shape: tuple[int, ...],
        make: Callable[..., Tensor] = dyadic,
        dtype: torch.dtype = torch.float32,
        steps: int | None = None,
        affine: bool = True,
        residual: bool = True,
        detach: bool = False,
    ) -> None:
        channels, self.steps, self.detach, self.dtype = shape[2], steps or shape[0], detach, dtype
        self.x = make(*shape).to(dtype)
        self.residual = make(*shape).to(dtype) if residual else None
        scales = torch.tensor([0.5, 1.0, 2.0])
        maps = [torch.stack([dyadic(channels, unit=8), scales[torch.randint(3, (channels,))], dyadic(channels, unit=8)])
                for _ in range(2)]  # fmt: skip
        self.affine, self.residual_affine = maps[0] if affine else None, maps[1] if affine and residual else None
        self.state, self.gain = make(*shape[1:]), torch.tensor(0.75)
        self.grad, self.grad_membrane = make(self.steps, *shape[1:]).to(dtype), make(*shape[1:])

    def forward(self, backend: Any, form: Callable[[Tensor], Tensor] = torch.Tensor.contiguous) -> tuple[Tensor, ...]:
        arguments = form(self.x), operands(self.affine), self.residual, operands(self.residual_affine), self.state
        return backend.forward(*map(to_device, arguments), self.steps, TAU, THRESHOLD)

    def backward(
        self, backend: Any, kind: int, parameter: float, form: Callable[[Tensor], Tensor] = torch.Tensor.contiguous
    ) -> tuple[Tensor, ...]:
        arguments = (form(self.grad), self.grad_membrane, form(self.x), operands(self.affine), self.residual,
                     operands(self.residual_affine), self.state, self.gain)  # fmt: skip
        return backend.backward(*map(to_device, arguments), self.steps, TAU, THRESHOLD, kind, parameter, self.detach)

    def current(self, dtype: torch.dtype) -> Tensor:
        def normalise(x: Tensor, affine: Tensor | None) -> Tensor:
            if affine is None:
                return x
            mean, scale, shift = affine.to(dtype)[(...,) + (None,) * (x.ndim - 3)]
            return (x - mean) * scale + shift

        total = normalise(self.x.to(dtype), self.affine)
        if self.residual is not None:
            total = total + normalise(self.residual.to(dtype), self.residual_affine)
        return total

    def expected(self, surrogate: Surrogate, dtype: torch.dtype = torch.float32) -> tuple[Tensor, ...]:
        """Spikes, membrane, dL/d(current), dL/d(state), in `dtype` throughout."""
        current, state = self.current(dtype).requires_grad_(), self.state.to(dtype).requires_grad_()
        steps = current.expand(self.steps, *current.shape[1:])
        spikes, u = reference.lif(steps, TAU, THRESHOLD, surrogate, state, self.gain.to(dtype), self.detach)
        grads = self.grad.to(dtype), self.grad_membrane.to(dtype)
        return spikes.detach(), u.detach(), *torch.autograd.grad((spikes, u), (current, state), grads)


def operands(affine: Tensor | None) -> tuple[Tensor, ...] | None:
    """(mean, scale, shift) as the primitives take them: weight, bias, mean and inverse."""
    return None if affine is None else (affine[1], affine[2], affine[0], torch.ones_like(affine[0]))


def to_device(x: Any) -> Any:
    return tuple(map(to_device, x)) if isinstance(x, tuple) else None if x is None else x.to(DEVICE)


def assert_same(result: Tensor, expected: Tensor) -> None:
    """Equal to the bit, and of one data type."""
    assert result.dtype == expected.dtype
    assert torch.equal(result.cpu(), expected)


def ulps(result: Tensor, exact: Tensor) -> float:
    """Largest distance in units of the last place of float32."""
    exponent = torch.frexp(exact).exponent.clamp_min(-125)
    return ((result.double() - exact).abs() / torch.ldexp(torch.ones_like(exact), exponent - 24)).max().item()
