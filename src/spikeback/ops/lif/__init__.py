"""The leaky integrate-and-fire recursion: one function, one signature, many backends, chosen here and nowhere else."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from importlib.util import find_spec

import torch
from torch import Tensor, nn

from spikeback.errors import UsageError
from spikeback.ops import native
from spikeback.ops.lif import compiled, cpu, reference
from spikeback.ops.lif.operator import Constants, norm_lif
from spikeback.ops.surrogate import ATan, Rectangle, Sigmoid, Surrogate, Tanh, Triangle, as_number, check_constant
from spikeback.values import instead, is_number

BACKENDS = ("reference", "compiled", "cpu", "triton")
CODES = {Triangle: 0, Rectangle: 1, Tanh: 2, Sigmoid: 4, ATan: 5}  # as the kernels count; 3 is Tanh not normalised
TRITON = find_spec("triton") is not None
NATIVE = {"cpu": ("cpu", cpu.DTYPES), "triton": ("cuda", (*cpu.DTYPES, torch.float16))}  # device and data types
KERNELS = {"cpu": "cpu", "cuda": "triton"}  # the backend that is fastest on a device, if it can run a call
_plain: ContextVar[bool] = ContextVar("plain", default=False)


@contextmanager
def plain() -> Iterator[None]:
    """Inside, neurons, convolutions and blocks run as the plain composition in PyTorch, the definition of ours."""
    token = _plain.set(True)
    try:
        yield
    finally:
        _plain.reset(token)


def is_plain() -> bool:
    """Whether this runs inside `plain()`."""
    return _plain.get()


def code(surrogate: Surrogate) -> tuple[int, float] | None:
    """Number of the surrogate in the kernels and its parameter; None for one that they do not know."""
    kind = CODES.get(type(surrogate))
    if kind is None:
        return None
    parameter, *flags = vars(surrogate).values()
    return (3, parameter) if flags == [False] else (kind, parameter)


def why_not(backend: str, x: Tensor, surrogate: Surrogate, gain: float | Tensor) -> str | None:
    """Why a backend cannot run a call, in a few words; None: it can."""
    if backend in ("reference", "compiled"):
        return None
    if is_plain():
        return "inside plain() everything runs in PyTorch's operations"
    device, dtypes = NATIVE[backend]
    if x.device.type != device:
        return f"x is on {x.device}, not on {device}"
    if x.dtype not in dtypes:
        return f"{_word(x.dtype)} has no kernel, only {', '.join(map(_word, dtypes))}"
    if code(surrogate) is None:
        return f"the surrogate {surrogate} has no kernel"
    if isinstance(gain, Tensor) and gain.numel() != 1:
        return f"the kernels know one gain, not one of shape {tuple(gain.shape)}"
    if backend == "cpu" and not native.available():
        return "no compiled kernels: build them with python -m spikeback.ops.native.build"
    if backend == "triton" and not TRITON:
        return "no Triton: pip install triton"
    return None


def no_kernel(x: Tensor, surrogate: Surrogate, gain: float | Tensor) -> str | None:
    """Why no kernel runs a call on x's device; None: one does."""
    backend = KERNELS.get(x.device.type)
    return f"there are no kernels for {x.device.type}" if backend is None else why_not(backend, x, surrogate, gain)


def fastest(x: Tensor, surrogate: Surrogate, gain: float | Tensor) -> str:
    """The fastest backend that can run a call, inside `plain()` the reference."""
    on = x.device.type
    if no_kernel(x, surrogate, gain) is None:
        return KERNELS[on]
    compiles = on == "cuda" and TRITON and x.dtype in NATIVE["triton"][1]  # Triton, for what has no kernel as well
    return "compiled" if compiles and not is_plain() else "reference"


def _word(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


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
    """Run leaky integrate-and-fire neurons with hard reset for T time steps (Eq. 1-2 of the paper).

    At every time step the membrane potential u leaks, and the current is added: u = tau * u + x_t. The neuron fires
    where u is above the threshold: s_t = 1[u > V_th]. Where it fires, it is reset to 0: u = u * (1 - s_t). In the
    backward pass the surrogate replaces the derivative of s_t. `ops/lif/reference.py` is the definition.

    Args:
        x: input current, (T, B, ...), T >= 1.
        tau: the fraction of the membrane potential that a time step leaves, in [0, 1]. 1 is the integrate-and-fire
            neuron.
        threshold: V_th > 0, in the units of the current. A neuron fires when its membrane potential is strictly above.
        surrogate: replaces the derivative of the firing function (Eq. 4).
        state: membrane potential after reset to start from, (B, ...). None starts at 0.
        gain: multiplies the surrogate's derivative. It has no effect in the forward pass.
        detach_reset: cut the gradient through the reset (the second path of Eq. 3).
        backend: "reference" (plain PyTorch, the definition), "compiled" (the same through torch.compile), "cpu" (native
            kernels) or "triton" (GPUs). None chooses the fastest that can run this call.

    Returns:
        Spikes (T, B, ...) in x's dtype, and the membrane potential after the last reset (B, ...). The latter is
        float32 for half-precision x.

    Raises:
        UsageError: there is no time step, a leak, threshold or state does not fit, a tensor among the constants
            requires a gradient (none is computed for it), or the backend is unknown or cannot run the call.
    """
    check_current(x, state)
    return run(x, tau, threshold, surrogate, state, gain, detach_reset, backend)


def run(
    x: Tensor,
    tau: float,
    threshold: float,
    surrogate: Surrogate,
    state: Tensor | None,
    gain: float | Tensor,
    detach_reset: bool,
    backend: str | None = None,
    keep_membrane: bool = True,
) -> tuple[Tensor, Tensor]:
    """`lif` of a current and state that were checked; the membrane is not worth reading if it is not kept."""
    tau, threshold = check_neuron(tau, threshold, surrogate, gain)
    if backend not in (None, *BACKENDS):
        raise UsageError(f"lif: no backend {backend!r}{instead(backend, BACKENDS)}")
    best = fastest(x, surrogate, gain)
    if backend is not None and (reason := why_not(backend, x, surrogate, gain)):
        raise UsageError(f"lif: backend {backend!r} cannot run this: {reason}; {best!r} can")
    if (backend or best) in ("reference", "compiled"):
        composed = reference.lif if (backend or best) == "reference" else compiled.lif
        return composed(x, tau, threshold, surrogate, state, gain, detach_reset)
    kind, parameter = code(surrogate) or (0, 0.0)
    gain = gain if isinstance(gain, Tensor) else torch.tensor(gain, device=x.device)
    constants = Constants(tau, threshold, kind, parameter, detach_reset)
    return norm_lif(x, gain, constants, x.shape[0], state=state, keep_membrane=keep_membrane)


def check_current(x: Tensor, state: Tensor | None) -> None:
    """Raises UsageError for a current or a state that no neuron can take."""
    if x.ndim < 1 or x.shape[0] < 1:
        raise UsageError(f"lif: x needs at least one time step, (T, B, ...) with T >= 1, got shape {tuple(x.shape)}")
    if not x.is_floating_point():
        raise UsageError(f"lif: x must be a floating point tensor, got {x.dtype}: pass x.float()")
    if state is not None and state.shape != x.shape[1:]:
        raise UsageError(f"lif: state has shape {tuple(state.shape)}, x needs {tuple(x.shape[1:])}")


def check_neuron(
    tau: float | Tensor, threshold: float | Tensor, surrogate: Surrogate, gain: float | Tensor = 1.0
) -> tuple[float, float]:
    """The leak and the threshold as numbers. Raises UsageError for constants that no neuron can have."""
    leak, level = as_number("lif: tau", tau), as_number("lif: threshold", threshold)
    check_constant("lif: gain", gain)
    if problem := wrong_leak(leak):
        raise UsageError(f"lif: {problem}")
    if not is_number(level) or not 0 < level < math.inf:
        raise UsageError(f"lif: threshold must be a positive number, got {level!r}")
    if not callable(surrogate):
        raise UsageError(f"lif: surrogate must be one of spikeback.surrogate, e.g. Triangle(1.0), got {surrogate!r}")
    if not isinstance(surrogate, Surrogate):  # ours have numbers only
        values = (
            surrogate.parameters() if isinstance(surrogate, nn.Module) else getattr(surrogate, "__dict__", {}).values()
        )
        for value in values:
            check_constant("lif: surrogate", value)
    return leak, level


def wrong_leak(tau: float) -> str | None:
    """What to say of a `tau` that is no leak, and what another framework's number is here; None of one that is."""
    if not is_number(tau):
        return f"tau must be a number in [0, 1], got {tau!r}"
    if 0 <= tau <= 1:
        return None
    problem = f"tau must lie in [0, 1], got {tau}"
    if not 1 < tau < math.inf:
        return problem
    return (
        f"{problem}: it is the share of the membrane potential that a step leaves. SpikingJelly's tau={float(tau)} is "
        f"tau={1 - 1 / tau:.4g} here, 1 - 1/tau; snnTorch's beta is tau as it is"
    )
