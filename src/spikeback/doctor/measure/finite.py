"""Numbers that are not finite hide behind spikes: NaN > V_th is false. Here they are named."""

import math
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from spikeback.errors import UsageError
from spikeback.foreign.undisturbed import entering


def require_finite(net: nn.Module, x: Tensor, y: Tensor | None = None) -> None:
    """Raises UsageError if x, y, a parameter or a buffer of `net` holds NaN or an infinite number.

    A buffer other than running statistics may hold -inf: so do masks of attention.
    """
    _refuse("x", x, "repair it, torch.nan_to_num(x, posinf=0, neginf=0), or leave these samples out")
    if y is not None:
        _refuse("y", y, "leave these samples out")
    for name, p in net.named_parameters():
        if not is_lazy(p):
            _refuse(f"parameter {name!r}", p, "load weights from before it happened, and lower the learning rate")
    for name, b in net.named_buffers():
        if is_lazy(b):
            continue
        held = b if "running_" in name or not b.is_floating_point() else torch.where(b == -math.inf, 0.0, b)
        _refuse(f"buffer {name!r}", held, "reset it, of a batch norm with reset_running_stats(), or load it again")


def _refuse(what: str, t: Tensor, cure: str) -> None:
    bad = ~torch.isfinite(t.detach())
    if bad.any():
        where = bad.nonzero()[0].tolist()
        raise UsageError(
            f"{what}: {int(bad.sum())} of {t.numel()} numbers are not finite, the first is {t[tuple(where)].item()} at "
            f"{where}; neurons hide it, as no comparison with NaN is true: {cure}"
        )


def require_finite_current(name: str, current: Any) -> None:
    """Raises UsageError if the current into the spiking layer `name` is not finite."""
    while isinstance(current, tuple | list) and current:
        current = current[0]
    if isinstance(current, Tensor) and not torch.isfinite(current.detach()).all():
        kind = "NaN" if current.isnan().any() else "inf"
        raise UsageError(
            f"layer {name!r} is the first whose current is not finite ({kind}), though x and all weights are: what "
            "lies before it overflows or divides by 0; look there, or compute in float32"
        )


@contextmanager
def watching(layers: Mapping[str, nn.Module]) -> Iterator[None]:
    """While the context lasts, the first spiking layer whose current is not finite raises UsageError."""
    with ExitStack() as hooks:
        for name, layer in layers.items():
            hooks.enter_context(entering(layer, partial(require_finite_current, name)))
        yield
