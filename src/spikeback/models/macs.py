"""What a forward pass costs."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch.utils.flop_counter import FlopCounterMode


@contextmanager
def counting_macs() -> Iterator[Callable[[], int]]:
    """Within, without gradients, the function it gives says how many multiply-accumulates there were so far.

    Those of convolutions and linear layers, a spike counted like any number; not norms and neurons.
    """
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        yield lambda: counter.get_total_flops() // 2
