"""The ResNet with norse's LIFBoxCell in a loop over time."""

import torch
from norse.torch import LIFBoxCell, LIFBoxParameters
from torch import Tensor, nn

from spikeback.lab.bench.nets import ResNet18

# v = v + dt / tau_mem (x - v) = 0.25 v + 0.75 x: norse scales the input too, harmless after a batch norm
PARAMETERS = LIFBoxParameters(tau_mem_inv=torch.as_tensor(750.0), v_th=torch.as_tensor(0.5))


class Neuron(nn.Module):
    """A cell that keeps its state between the time steps of one forward."""

    def __init__(self) -> None:
        super().__init__()
        self.cell, self.state = LIFBoxCell(PARAMETERS, dt=0.001), None

    def forward(self, x: Tensor) -> Tensor:
        spikes, self.state = self.cell(x, self.state)
        return spikes


class Net(nn.Module):
    """Images (B, C, H, W) -> logits averaged over time (B, K)."""

    def __init__(self, width: int, time_steps: int, classes: int) -> None:
        super().__init__()
        self.time_steps = time_steps
        self.net = ResNet18(width, classes, act=Neuron)

    def forward(self, x: Tensor) -> Tensor:
        for module in self.net.modules():
            if isinstance(module, Neuron):
                module.state = None
        return torch.stack([self.net(x) for _ in range(self.time_steps)]).mean(0)
