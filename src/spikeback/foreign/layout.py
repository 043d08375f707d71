"""Where time, samples and channels are in what a module takes and puts out."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

from spikeback.nn.pool import firing_rates

Axes = Literal["T B", "B T", "TB", "BT", "B"]
WORDS: dict[Axes, str] = {
    "T B": "(T, B, ...)",
    "B T": "(B, T, ...)",
    "TB": "(T*B, ...)",
    "BT": "(B*T, ...)",
    "B": "(B, ...) for one time step",
}
BATCH_FIRST = (
    "they look batch first, (B, T, K), and time comes first here, (T, B, K): return `logits.transpose(0, 1)` from the "
    "network's forward"
)


@dataclass(frozen=True)
class Layout:
    """Where time, samples and channels are in one output; `channels` is the first or the last of the other axes."""

    axes: Axes = "T B"
    channels: Literal["first", "last"] = "first"

    @property
    def leading(self) -> int:
        """How many axes count time steps and samples."""
        return 2 if self.axes in ("T B", "B T") else 1

    def time_first(self, z: Tensor, batch: int) -> Tensor:
        """One output with B samples -> (T, B, ...)."""
        if self.axes == "T B":
            return z
        if self.axes == "B T":
            return z.transpose(0, 1)
        if self.axes == "TB":
            return z.unflatten(0, (-1, batch))
        return z.unflatten(0, (batch, -1)).transpose(0, 1) if self.axes == "BT" else z.unsqueeze(0)

    def as_it_was(self, z: Tensor) -> Tensor:
        """The inverse of `time_first`: (T, B, ...) -> an output."""
        if self.axes in ("BT", "B T"):
            z = z.transpose(0, 1)
        if self.axes == "B":
            return z.squeeze(0)
        return z.flatten(0, 1) if self.axes in ("TB", "BT") else z

    def joined(self, calls: Sequence[Tensor], batch: int) -> Tensor:
        """The outputs of all calls in one forward pass, a call for all time steps or for each -> (T, B, ...)."""
        parts = [self.time_first(z, batch) for z in calls]
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def pooled(self, z: Tensor) -> Tensor:
        """Means of one output over all axes but those of time, samples and channels, which comes last."""
        lead = self.leading
        if z.ndim <= lead + 1:
            return z
        if self.channels == "last":
            return z.mean([*range(lead, z.ndim - 1)])
        return firing_rates(z) if lead == 2 else firing_rates(z.unsqueeze(0)).squeeze(0)

    def width(self, shape: Sequence[int]) -> int:
        """How many channels an output (T, B, ...) of this shape has."""
        return shape[2 if self.channels == "first" else -1]

    def fits(self, calls: Sequence[Sequence[int]], steps: int | None, batch: int) -> bool:
        """Whether outputs of these shapes, one a call, can be T steps of B samples; T None: any number of steps.

        A single output of one time step fits any T: it is the same at every step.
        """
        rows, second = calls[0][0], calls[0][1] if len(calls[0]) > 2 else 0
        if len(calls) > 1:
            one = {"T B": (1, batch), "B T": (batch, 1)}.get(self.axes, (batch,))  # shape of one time step
            return all(tuple(s[: len(one)]) == one for s in calls) and steps in (None, len(calls))
        if self.axes == "B":
            return rows == batch
        if self.axes in ("TB", "BT"):
            return rows % batch == 0 and rows > 0 and steps in (None, rows // batch)
        time, samples = (rows, second) if self.axes == "T B" else (second, rows)
        return samples == batch and time > 0 and (steps in (None, time) or (time == 1 and self.axes == "T B"))


@dataclass(frozen=True)
class Layouts:
    """Where the samples are in a network's input, and the layout of the outputs that were asked for."""

    steps: int | None  # T, if the logits tell
    batch: int
    classes: int
    entry: Layout
    outputs: dict[str, Layout]
    sizes: dict[str, tuple[int, ...]] = field(default_factory=dict)  # of an output as (T, B, ...)
    doubles: bool = True  # the network takes another number of samples as well
