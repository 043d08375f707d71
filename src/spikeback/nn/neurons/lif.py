"""Leaky integrate-and-fire."""

from torch import Tensor

from spikeback.nn.neurons.neuron import Neuron
from spikeback.nn.why import is_noting, note
from spikeback.ops.lif import check_current, check_neuron, no_kernel, run
from spikeback.ops.packing import note_spikes
from spikeback.ops.surrogate import Surrogate, Tanh


class LIF(Neuron):
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

    def __init__(
        self,
        tau: float = 0.25,
        threshold: float = 0.5,
        surrogate: Surrogate = Tanh(3.0),  # noqa: B008 - a frozen value
        detach_reset: bool = False,
    ) -> None:
        leak, threshold = check_neuron(tau, threshold, surrogate)
        super().__init__(threshold, surrogate, detach_reset)
        self.tau = leak

    def charge(self, v: Tensor, x: Tensor) -> Tensor:
        return self.tau * v + x

    @property
    def leak(self) -> float:
        return self.tau

    def forward(
        self, x: Tensor, state: Tensor | None = None, return_state: bool = False
    ) -> Tensor | tuple[Tensor, Tensor]:
        """As `Neuron`, in one kernel where there is one (`spikeback.lif`)."""
        check_current(x, state)
        if is_noting():
            note(self, no_kernel(x, self.surrogate, self.gain))
        spikes, state = run(
            x, self.tau, self.threshold, self.surrogate, state, self.gain, self.detach_reset, None, return_state
        )
        note_spikes(spikes)
        return (spikes, state) if return_state else spikes
