"""What every spiking neuron of ours is: one equation for the charge, one for the reset, no memory between calls."""

from typing import Any, Literal

import torch
from torch import Tensor, nn

from spikeback.nn.why import note
from spikeback.ops.lif import check_current, check_neuron
from spikeback.ops.lif.reference import Fire
from spikeback.ops.packing import note_spikes
from spikeback.ops.surrogate import Surrogate, Tanh


class Neuron(nn.Module):
    """Base of neurons; a subclass says how the membrane potential is charged, and the rest is here:

        u = charge(v, x_t);  s = 1[u > threshold];  v = after(u, s)        for t = 1 .. T

    Args:
        threshold: V_th, fired at when strictly exceeded. A subclass may set a tensor that is learnt instead.
        surrogate: derivative of the firing function used in the backward pass.
        detach_reset: cut the gradient through the reset.

    The doctor reads `threshold`, `surrogate`, `gain`, `reset`, `leak` and `scale`, and replays `charge` and `after` to
    see the membrane. `gain` is a buffer, saved with the layer: a scalar that multiplies the surrogate's derivative.
    """

    gain: Tensor
    reset: Literal["hard", "soft", "none"] = "hard"

    def __init__(
        self,
        threshold: float = 0.5,
        surrogate: Surrogate = Tanh(3.0),  # noqa: B008 - a frozen value
        detach_reset: bool = False,
    ) -> None:
        super().__init__()
        self.threshold: Any  # a number, or a tensor of a subclass
        _, self.threshold = check_neuron(1.0, threshold, surrogate)
        self.surrogate, self.detach_reset = surrogate, detach_reset
        self.register_buffer("gain", torch.tensor(1.0))

    def charge(self, v: Tensor, x: Tensor) -> Tensor:
        """The membrane potential just before firing, from what the last step left and the current; both (B, ...)."""
        raise NotImplementedError

    def after(self, u: Tensor, s: Tensor) -> Tensor:
        """What a step leaves of the membrane potential: `reset` "hard" is u (1 - s), "soft" u - threshold * s."""
        if self.reset == "hard":
            return u * (1 - s)
        return u - self.threshold * s if self.reset == "soft" else u

    def fire(self, u: Tensor) -> Tensor:
        """s = 1[u > threshold]. A threshold that is learnt gets -surrogate'(u) times the spikes' gradient."""
        threshold = self.threshold
        if isinstance(threshold, Tensor):  # the same u, and ds/d(threshold) = -ds/du
            u, threshold = u + (threshold.detach() - threshold), threshold.detach()
        return Fire.apply(u, threshold, self.surrogate, self.gain)

    @property
    def leak(self) -> float | None:
        """lambda of charge(v, x) = lambda * v + scale * x, for the theory; None: the charge is another function."""
        return None

    @property
    def scale(self) -> float:
        """What the current is multiplied by in the charge."""
        return 1.0

    def forward(
        self, x: Tensor, state: Tensor | None = None, return_state: bool = False
    ) -> Tensor | tuple[Tensor, Tensor]:
        """Current (T, B, ...) to spikes (T, B, ...); with `return_state` also the membrane after reset, (B, ...)."""
        check_current(x, state)
        note(self, f"{type(self).__name__} has no kernel")
        membrane = torch.promote_types(x.dtype, torch.float32)
        v = x.new_zeros(x.shape[1:], dtype=membrane) if state is None else state.to(membrane)
        spikes = []
        for x_t in x:
            u = self.charge(v, x_t)
            s = self.fire(u)
            spikes.append(s.to(x.dtype))
            v = self.after(u, s.detach() if self.detach_reset else s)
        result = note_spikes(torch.stack(spikes))
        return (result, v) if return_state else result

    def extra_repr(self) -> str:
        names = ("tau", "threshold", "surrogate", "detach_reset")
        return ", ".join(f"{name}={getattr(self, name)}" for name in names if hasattr(self, name))
