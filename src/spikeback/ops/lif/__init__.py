"""The leaky integrate-and-fire recursion: one function, one signature, many backends, chosen here and nowhere else."""

import math
from collections.abc import Callable

from torch import Tensor

from spikeback.errors import UsageError
from spikeback.ops.lif import reference
from spikeback.ops.surrogate import Surrogate

BACKENDS: dict[str, Callable[..., tuple[Tensor, Tensor]]] = {"reference": reference.lif}


def lif(
    x: Tensor,
    tau: float,
    threshold: float,
    surrogate: Surrogate,
    *,
    state: Tensor | None = None,
    gain: float | Tensor = 1.0,
    detach_reset: bool = False,
    backend: str | None = None,
) -> tuple[Tensor, Tensor]:
    """Run T steps of leaky integrate-and-fire neurons with hard reset (Eq. 1-2 of the paper).

    Args:
        x: input current, (T, B, ...), T >= 1.
        tau: leak in [0, 1]; 1 is the integrate-and-fire neuron.
        threshold: V_th > 0; a neuron fires when its membrane is strictly above.
        surrogate: stands in for the derivative of the firing function (Eq. 4).
        state: membrane after reset to start from, (B, ...); None starts at 0.
        gain: multiplies the surrogate's derivative, nothing in the forward pass.
        detach_reset: cut the gradient through the reset (the second path of Eq. 3).
        backend: one of `BACKENDS`; None chooses the fastest that can run this call.

    Returns:
        spikes (T, B, ...) in x's dtype, and the membrane after the last reset (B, ...), float32 for half-precision x.

    Raises:
        UsageError: no time step, a leak, threshold or state that does not fit, or an unknown backend.
    """
    if x.ndim < 1 or x.shape[0] < 1:
        raise UsageError(f"lif: x needs at least one time step, (T, B, ...) with T >= 1, got shape {tuple(x.shape)}")
    if not x.is_floating_point():
        raise UsageError(f"lif: x must be a floating point tensor, got {x.dtype}")
    check_neuron(tau, threshold, surrogate)
    if state is not None and state.shape != x.shape[1:]:
        raise UsageError(f"lif: state has shape {tuple(state.shape)}, x needs {tuple(x.shape[1:])}")
    if backend not in (None, *BACKENDS):
        raise UsageError(f"lif: no backend {backend!r}; choose from {', '.join(BACKENDS)}")
    return BACKENDS[backend or "reference"](x, tau, threshold, surrogate, state, gain, detach_reset)


def check_neuron(tau: float, threshold: float, surrogate: Surrogate) -> None:
    """Raises UsageError for constants that no neuron can have."""
    if not 0 <= tau <= 1:
        raise UsageError(f"lif: tau must lie in [0, 1], got {tau}")
    if not (math.isfinite(threshold) and threshold > 0):
        raise UsageError(f"lif: threshold must be a positive number, got {threshold}")
    if not callable(surrogate):
        raise UsageError(f"lif: surrogate must be one of spikeback.surrogate, e.g. Triangle(1.0), got {surrogate!r}")
