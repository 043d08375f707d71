"""What makes a block's gradient larger or smaller, and how far it is turned."""

import math
from dataclasses import replace

from spikeback.errors import UsageError
from spikeback.nn import Neuron
from spikeback.ops.surrogate import ATan, Rectangle, Sigmoid, Tanh

WIDTHS: dict[type, str] = {Rectangle: "a", Tanh: "k", Sigmoid: "alpha", ATan: "alpha"}  # the parameter that sets it


class Knob:
    """What makes the gradient of a block's neurons larger: their gain, or their surrogate's width."""

    def __init__(self, neurons: list[Neuron], width: bool) -> None:
        self.neurons, self.surrogate, self.parameter = neurons, neurons[-1].surrogate, None
        if width:
            self.parameter = WIDTHS.get(type(self.surrogate))
            if self.parameter is None:
                known = ", ".join(kind.__name__ for kind in WIDTHS)
                raise UsageError(
                    f"calibrate: {self.surrogate} has no width to set, only {known} have; leave width=False"
                )
        self.value = neurons[-1].gain.mean().item() if width is False else getattr(self.surrogate, str(self.parameter))
        if not self.value > 0:
            raise UsageError(f"calibrate: a neuron's gain must be a positive number, it is {self.value}")
        self.slope = -1.0 if self.parameter == "a" else 1.5  # d log(gain of the block) / d log(value), a first guess
        self.last: tuple[float, float] | None = None  # logarithms of value and of the block's gain

    def turn(self, value: float) -> None:
        """Set all neurons of the block."""
        self.value = value
        for neuron in self.neurons:
            if self.parameter:
                neuron.surrogate = replace(self.surrogate, **{self.parameter: value})
            else:
                neuron.gain.fill_(value)

    def towards(self, target: float, measured: float) -> None:
        """A secant step in logarithms, of a factor of 10 at most."""
        here = (math.log(self.value), math.log(measured))
        if self.last and abs(here[0] - self.last[0]) > 1e-3:
            slope = (here[1] - self.last[1]) / (here[0] - self.last[0])
            sign = math.copysign(1.0, self.slope)
            self.slope = sign * min(max(sign * slope, 0.5), 3.0)
        self.last = here
        step = (math.log(target) - here[1]) / self.slope
        bound = 3.0 if self.parameter else 9.0
        self.turn(math.exp(min(max(here[0] + min(max(step, -2.3), 2.3), -bound), bound)))
