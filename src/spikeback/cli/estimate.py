"""How long a training still takes: from the time of its own steps, known after the first ones."""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Callback

WARM_UP, ENOUGH = 3, 10  # steps that are not timed: memory and workers come up; steps, or seconds of them, that tell
FORWARD = 1 / 3  # of a step: the backward pass takes twice as long
OFTEN = 0.1  # of the whole work between two lines, where nobody watches the bar


@dataclass
class Clock:
    """Seconds of the steps and of the pauses between epochs (judging, checkpoints), and what is still to come."""

    judged: float  # passes of a training batch's size when an epoch is judged
    steps: list[float] = field(default_factory=list)
    pauses: list[float] = field(default_factory=list)

    def knows(self) -> bool:
        """Whether enough steps were timed: ten, or those of ten seconds."""
        return len(self.steps) >= ENOUGH or sum(self.steps) >= ENOUGH

    def seconds(self, steps: int, epochs: int) -> float:
        """What so many steps take, and the pauses after so many epochs; the first pause is guessed from the steps."""
        step = statistics.median(self.steps)
        pause = statistics.mean(self.pauses) if self.pauses else self.judged * FORWARD * step
        return steps * step + epochs * pause


class Estimate(Callback):
    """Tells how long is left, of one trial of several: on its progress bar, and in a line now and then.

    Args:
        bar: called with steps done, steps in all, and the time left in words, after every step.
        say: called with a line: after the first steps, and after every tenth of the work where nobody watches.
        before, after: trials that are finished, and that follow.
        watched: whether somebody sees the bar.
    """

    def __init__(
        self, bar: Callable[[int, int, str], None], say: Callable[[str], None], before: int, after: int, watched: bool
    ) -> None:
        self.bar, self.say, self.before, self.after, self.watched = bar, say, before, after, watched
        self.due = 0.0  # share of the work from which on the next line is due
        self.last: float | None = None  # when the last step ended

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.total, self.skip, self.step = int(trainer.estimated_stepping_batches), WARM_UP, trainer.global_step
        self.clock = Clock(2 * sum(map(float, trainer.num_val_batches)))  # judged in batches of twice the size
        self._show()

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if self.last is not None:
            self.clock.pauses.append(time.perf_counter() - self.last)
        self.last = time.perf_counter()

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if trainer.global_step == self.step or self.last is None:  # a part of an accumulated batch
            return
        now, self.step = time.perf_counter(), trainer.global_step
        self.skip -= 1
        if self.skip < 0:
            self.clock.steps.append(now - self.last)
        self.last = now
        known = self.clock.knows() or (self.clock.steps and self.clock.pauses)
        self._show(trainer) if known else self._show()

    def _show(self, trainer: L.Trainer | None = None) -> None:
        done, work = self.before * self.total + self.step, (self.before + 1 + self.after) * self.total
        if trainer is None:
            return self.bar(done, work, "?")
        epochs = trainer.max_epochs or 0
        own = self.clock.seconds(self.total - self.step, epochs - trainer.current_epoch)
        left = duration(own + self.after * self.clock.seconds(self.total, epochs))
        self.bar(done, work, left)
        if self.total - self.step and done >= self.due * work:
            self.due = float("inf") if self.watched else done / work + OFTEN
            step = statistics.median(self.clock.steps)
            others = f" and {self.after} more like it" if self.after else ""
            self.say(f"about {left} left for this trial of {epochs} epochs{others}, at {step:.2g} s a step")
        return None


def duration(seconds: float) -> str:
    """Seconds in words: "40 s", "12 min", "3 h 20 min", "2 d 4 h"."""
    minutes, hours = round(seconds / 60), round(seconds / 3600)
    if seconds < 90:
        return f"{max(round(seconds), 1)} s"
    if minutes < 90:
        return f"{minutes} min"
    return f"{minutes // 60} h {minutes % 60} min" if hours < 24 else f"{hours // 24} d {hours % 24} h"
