"""What a forward pass costs."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode, conv_flop_count, register_flop_formula

import spikeback.ops.convolution  # noqa: F401  (its operators)


@register_flop_formula(torch.ops.spikeback.convolve)
def _convolve(x: Any, weight: Any, *_: Any, out_shape: Any, **__: Any) -> int:
    """What the direct convolution would do: what is computed, not how."""
    return conv_flop_count(x, weight, out_shape)


@register_flop_formula(torch.ops.spikeback.convolve_input)
def _convolve_input(grad: Any, weight: Any, *_: Any, out_shape: Any, **__: Any) -> int:
    return conv_flop_count(grad, weight, out_shape, transposed=True)


@register_flop_formula(torch.ops.spikeback.convolve_weights)
def _convolve_weights(x: Any, grad: Any, *_: Any, out_shape: Any, **__: Any) -> int:
    return conv_flop_count(x, out_shape, grad)


@contextmanager
def counting_macs() -> Iterator[Callable[[], int]]:
    """Within, without gradients, the function it gives says how many multiply-accumulates there were so far.

    Those of convolutions and linear layers, a spike counted like any number; not norms and neurons.
    """
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        yield lambda: counter.get_total_flops() // 2
