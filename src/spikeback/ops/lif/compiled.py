"""The reference through torch.compile: for accelerators that Triton does not reach."""

from functools import cache
from typing import Any

import torch
from torch import Tensor

from spikeback.ops.lif import reference


@cache
def compiled(backend: str) -> Any:
    return torch.compile(reference.lif, backend=backend)


def lif(*arguments: Any, backend: str = "inductor") -> tuple[Tensor, Tensor]:
    """Arguments and results of `reference.lif`; the first call compiles, and again for every new kind of input."""
    return compiled(backend)(*arguments)
