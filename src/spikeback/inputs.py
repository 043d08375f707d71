"""What a network is given: where it does not fit, a sentence that says what was given and what to do."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from spikeback.errors import UsageError

CASTS = {torch.float32: "float", torch.float64: "double", torch.float16: "half", torch.bfloat16: "bfloat16"}


def check_input(x: Tensor, conv: nn.Module) -> None:
    """Raises UsageError unless x is images (B, C, H, W) or frames (T, B, C, H, W) for a network whose first layer is
    the convolution `conv`.
    """
    if not isinstance(x, Tensor):
        raise UsageError(f"a network takes a tensor, got {type(x).__name__}: pass torch.as_tensor(x)")
    if x.ndim not in (4, 5) or (x.ndim == 5 and x.shape[0] < 1):
        alone = ", one image is x[None]" if x.ndim == 3 else ""
        raise UsageError(
            f"a network takes images (B, C, H, W) or frames (T, B, C, H, W) with T >= 1, got {tuple(x.shape)}{alone}"
        )
    if not isinstance(conv, nn.Conv2d):
        return
    if x.dtype != conv.weight.dtype and (problem := wrong_dtype(x, conv.weight.dtype)):
        raise UsageError(problem)
    if x.shape[-3] != conv.in_channels:
        last = x.shape[-1] == conv.in_channels
        cure = (
            "the channels seem to be last: pass x.movedim(-1, -3)"
            if last
            else f"create_model(..., in_channels={x.shape[-3]}) takes these"
        )
        raise UsageError(
            f"the network takes {conv.in_channels} channels, images (B, {conv.in_channels}, H, W) or frames "
            f"(T, B, {conv.in_channels}, H, W), got {tuple(x.shape)}; {cure}"
        )


def wrong_dtype(x: Tensor, wanted: torch.dtype) -> str | None:
    """What to say of an input to a network whose weights are `wanted`; None where autocast brings them together."""
    if x.dtype == wanted or not wanted.is_floating_point:
        return None
    what = f"x is {x.dtype}, the network's weights are {wanted}"
    cast = CASTS.get(wanted, f"to({wanted})")
    cast = cast if cast.startswith("to(") else f"{cast}()"
    if not x.is_floating_point():
        scaled = " / 255, scaled as in training" if x.dtype == torch.uint8 else ""
        return f"{what}: pass x.{cast}{scaled}"
    if torch.is_autocast_enabled(x.device.type) and torch.float64 not in (x.dtype, wanted):
        return None
    other = f", or change the network by net.{CASTS[x.dtype]}()" if x.dtype in CASTS else ""
    return f"{what}: pass x.{cast}{other}"


def warn_of_batch_first(x: Tensor, time_steps: int) -> None:
    """Warn if frames seem to be (B, T, ...): the second axis is as long as T is, and the first is not.

    Where B is T, too, or frames have another number of steps than the network, no shape can tell.
    """
    if x.shape[0] != time_steps and x.shape[1] == time_steps and not torch.compiler.is_compiling():
        warnings.warn(
            f"x looks batch first, (B, T, ...): {tuple(x.shape)} for a network of time_steps={time_steps}; frames are "
            f"(T, B, ...): pass x.transpose(0, 1). If these are {x.shape[0]} steps of {x.shape[1]} samples, set the "
            f"network's time_steps = {x.shape[0]}",
            UserWarning, stacklevel=3,
        )  # fmt: skip


@contextmanager
def explained(net: nn.Module, x: Tensor) -> Iterator[None]:
    """Within: where any network fails on an x of another dtype than its weights, the error says that, as a UsageError.

    A network may well want whole numbers, so that nothing is refused before it fails.
    """
    try:
        yield
    except RuntimeError as error:
        wanted = next((p.dtype for p in net.parameters() if p.is_floating_point()), x.dtype)
        if (problem := wrong_dtype(x, wanted)) is None:
            raise
        raise UsageError(f"{type(net).__name__}: {problem}") from error


def check_labels(y: Tensor) -> None:
    """Raises UsageError unless y is whole numbers, one class a sample; whether so many as samples is not known here."""
    if not isinstance(y, Tensor):
        raise UsageError(f"y must be a tensor of whole numbers (B,), got {type(y).__name__}: pass torch.as_tensor(y)")
    if y.ndim < 2 and not y.is_floating_point():
        return
    cure = "y.long()" if y.ndim == 1 else "y.squeeze(1).long()" if y.shape[1:] == (1,) else "y.argmax(1)"
    cure = f": pass {cure}" if y.ndim in (1, 2) else ""
    given = f"{y.dtype} {tuple(y.shape)}"
    raise UsageError(f"y must be whole numbers (B,), the classes, got {given}{cure}; or give loss=...")
