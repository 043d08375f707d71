"""The ResNet with snnTorch's Leaky in a loop over time, as its tutorials do it."""

from functools import partial

import snntorch as snn
import torch
from torch import Tensor, nn

from spikeback.lab.bench.nets import ResNet18

# mem = 0.25 mem + x; a neuron above 0.5 fires, and its membrane is 0 before the next step
lif = partial(snn.Leaky, beta=0.25, threshold=0.5, reset_mechanism="zero", init_hidden=True)


class Net(nn.Module):
    """Images (B, C, H, W) -> logits averaged over time (B, K)."""

    def __init__(self, width: int, time_steps: int, classes: int) -> None:
        super().__init__()
        self.time_steps = time_steps
        self.net = ResNet18(width, classes, act=lif)

    def forward(self, x: Tensor) -> Tensor:
        for module in self.net.modules():  # utils.reset(net) sees the outermost modules only
            if isinstance(module, snn.Leaky):
                module.reset_mem()
        return torch.stack([self.net(x) for _ in range(self.time_steps)]).mean(0)
