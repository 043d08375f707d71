"""The ResNet in SpikingJelly's layers, multi-step, as its documentation recommends; and its neuron alone."""

from collections.abc import Callable

from spikingjelly.activation_based import functional, layer, neuron, surrogate
from torch import Tensor, nn

from spikeback.lab.bench.nets import ResNet18


def lif(surrogate_function: Callable[..., Tensor] | None = None) -> nn.Module:
    """v = 0.25 v + x, threshold 0.5, hard reset to 0, not detached: the equations of `spikeback.LIF`."""
    return neuron.LIFNode(
        tau=4 / 3,  # v - v / tau = 0.25 v
        decay_input=False,
        v_threshold=0.5,
        v_reset=0.0,
        surrogate_function=surrogate_function or surrogate.Sigmoid(),  # its default
        detach_reset=False,
        step_mode="m",
    )


class Net(nn.Module):
    """Images (B, C, H, W) -> logits averaged over time (B, K)."""

    def __init__(self, width: int, time_steps: int, classes: int) -> None:
        super().__init__()
        self.time_steps = time_steps
        self.net = ResNet18(width, classes, layer.Conv2d, layer.BatchNorm2d, lif)
        functional.set_step_mode(self.net, "m")

    def forward(self, x: Tensor) -> Tensor:
        functional.reset_net(self.net)
        return self.net(x.unsqueeze(0).repeat(self.time_steps, 1, 1, 1, 1)).mean(0)


def neuron_alone(surrogate_name: str) -> Callable[[Tensor], Tensor]:
    """Current (T, B, ...) -> spikes; `surrogate_name` is one of SpikingJelly's."""
    node = lif(getattr(surrogate, surrogate_name)())

    def call(x: Tensor) -> Tensor:
        node.reset()
        return node(x)

    return call
