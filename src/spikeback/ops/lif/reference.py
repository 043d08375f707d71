"""Leaky integrate-and-fire in plain PyTorch: the definition that every faster backend is compared with."""

from typing import Any

import torch
from torch import Tensor

from spikeback.ops.surrogate import Surrogate


class Fire(torch.autograd.Function):
    """The step 1[u > V_th] forwards, the surrogate's derivative backwards."""

    @staticmethod
    def forward(ctx: Any, u: Tensor, threshold: float, surrogate: Surrogate, gain: float | Tensor) -> Tensor:
        ctx.save_for_backward(u)
        ctx.threshold, ctx.surrogate, ctx.gain = threshold, surrogate, gain
        return (u > threshold).to(u.dtype)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None, None]:
        (u,) = ctx.saved_tensors
        return grads[0] * (ctx.gain * ctx.surrogate(u, ctx.threshold)), None, None, None


def lif(
    x: Tensor,
    tau: float,
    threshold: float,
    surrogate: Surrogate,
    state: Tensor | None,
    gain: float | Tensor,
    detach_reset: bool,
) -> tuple[Tensor, Tensor]:
    """Eq. 1-2; arguments as `spikeback.lif`. The membrane is at least float32, spikes have x's dtype."""
    membrane = torch.promote_types(x.dtype, torch.float32)
    u = x.new_zeros(x.shape[1:], dtype=membrane) if state is None else state.to(membrane)
    spikes = []
    for x_t in x:
        u = tau * u + x_t  # u_pre
        s = Fire.apply(u, threshold, surrogate, gain)
        spikes.append(s.to(x.dtype))
        u = u * (1 - (s.detach() if detach_reset else s))
    return torch.stack(spikes), u
