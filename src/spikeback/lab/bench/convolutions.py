"""A 3x3 convolution of spikes alone, forward and backward: our kernel or PyTorch's, and what both round."""

from contextlib import nullcontext

import torch
from torch.nn.functional import conv2d

from spikeback.lab.bench.steps import Made
from spikeback.nn.conv import Conv2d
from spikeback.ops.convolution import is_faster
from spikeback.ops.lif import plain

DENSITY = 0.25  # of the spikes


def both_ways(direct: bool, images: int, channels: int, size: int) -> Made:
    """Output, gradients of input and weights, of `channels` to as many on random spikes; `direct` takes PyTorch's.

    Among the facts: whose kernel it was, and how far its output is from that in float64, over the size of this.
    """
    torch.manual_seed(0)
    enter = plain if direct else nullcontext
    layer = Conv2d(channels, channels, 3, padding=1, bias=False).to(memory_format=torch.channels_last)
    shape = (images, channels, size, size)
    x = (torch.rand(shape) < DENSITY).float().contiguous(memory_format=torch.channels_last).requires_grad_()
    grad = torch.randn(shape).contiguous(memory_format=torch.channels_last)

    def work() -> None:
        layer.weight.grad = x.grad = None
        with enter():
            y = layer(x)
        y.backward(grad)

    with enter(), torch.no_grad():
        kernel = "ours" if is_faster(layer, x) else "PyTorch's"
        exact = conv2d(x.double(), layer.weight.double(), padding=1)
        rounding = ((layer(x).double() - exact).norm() / exact.norm()).item()
    return work, {"kernel": kernel, "rounding": rounding}
