"""The spiking neuron as a module."""

import torch
from torch import Tensor, nn

from spikeback.ops.lif import check_current, check_neuron, run
from spikeback.ops.packing import note_spikes
from spikeback.ops.surrogate import Surrogate, Tanh


class LIF(nn.Module):
    """Leaky integrate-and-fire neurons, stateless between calls (`spikeback.lif` has the equations).

    Args:
        tau: the fraction of the membrane potential that a time step leaves, in [0, 1]. 1 is the integrate-and-fire
            neuron.
        threshold: V_th > 0. A neuron fires when its membrane potential is strictly above.
        surrogate: replaces the derivative of the firing function in the backward pass (Eq. 4).
        detach_reset: cut the gradient through the reset.

    Leak, threshold and gain are constants: tensors that require a gradient are refused, also if they are set later.
    `gain` is a buffer of the layer and saved with it. It is a scalar that multiplies the surrogate's derivative.
    Defaults are those of the authors' public code (their V_th = 1 compared at 0.5 is a threshold of 0.5).
    """

    gain: Tensor

    def __init__(
        self,
        tau: float = 0.25,
        threshold: float = 0.5,
        surrogate: Surrogate = Tanh(3.0),  # noqa: B008 - a frozen value
        detach_reset: bool = False,
    ) -> None:
        super().__init__()
        self.tau, self.threshold = check_neuron(tau, threshold, surrogate)
        self.surrogate, self.detach_reset = surrogate, detach_reset
        self.register_buffer("gain", torch.tensor(1.0))

    def forward(
        self, x: Tensor, state: Tensor | None = None, return_state: bool = False
    ) -> Tensor | tuple[Tensor, Tensor]:
        """Current (T, B, ...) to spikes (T, B, ...); with `return_state` also the membrane after reset, (B, ...)."""
        check_current(x, state)
        spikes, state = run(
            x, self.tau, self.threshold, self.surrogate, state, self.gain, self.detach_reset, None, return_state
        )
        note_spikes(spikes)
        return (spikes, state) if return_state else spikes

    def extra_repr(self) -> str:
        names = ("tau", "threshold", "surrogate", "detach_reset")
        return ", ".join(f"{name}={getattr(self, name)}" for name in names)
