"""Sums over the processes that train one network together, and the moments of a batch that they share."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor, distributed

_alone: ContextVar[bool] = ContextVar("alone", default=False)


@contextmanager
def local_statistics() -> Iterator[None]:
    """Inside, batch norms take the statistics of this process's batch alone: what the others do does not matter."""
    token = _alone.set(True)
    try:
        yield
    finally:
        _alone.reset(token)


def several() -> bool:
    """Whether other processes work on the same batch: torch.distributed runs, and this is not `local_statistics`."""
    ready = distributed.is_available() and distributed.is_initialized()
    return ready and not _alone.get() and distributed.get_world_size() > 1


class _Sum(torch.autograd.Function):
    """The sum is every process's, so the gradient with respect to one term is the sum of all processes' gradients."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        total = x.clone()
        distributed.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        total = grads[0].clone(memory_format=torch.contiguous_format)
        distributed.all_reduce(total)
        return total


def sum_over_processes(x: Tensor) -> Tensor:
    """Elementwise sum of x over all processes, with its gradient; every process has to call it, with the same shape."""
    return _Sum.apply(x)  # pyright: ignore[reportReturnType]


def mean_over_processes(x: Tensor) -> Tensor:
    """Elementwise mean of x over all processes, x itself where there is one."""
    return sum_over_processes(x) / distributed.get_world_size() if several() else x


def pooled_moments(mean: Tensor, variance: Tensor, count: int) -> tuple[Tensor, Tensor, Tensor]:
    """Mean, biased variance and number of values by channel, (C,) float64, over all processes, from those of each.

    The processes' counts may differ. In double precision the difference of squares loses nothing that a batch in single
    precision has.
    """
    mean, variance = mean.double(), variance.double()
    own = torch.stack((torch.ones_like(mean), mean, variance + mean.square())) * count
    total, first, second = sum_over_processes(own)
    mean = first / total
    return mean, second / total - mean.square(), total
