"""The LightningModule: one method on one network, with the record of what happened."""

import math
import statistics
import time
import warnings
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any, cast

import lightning as L
import torch
from torch import Tensor
from torchmetrics.classification import MulticlassAccuracy

from spikeback.doctor import block_names, decompose, keep_histogram, propagate, undisturbed
from spikeback.doctor.measure.finite import require_finite
from spikeback.errors import TrainingError, UsageError
from spikeback.losses import Loss
from spikeback.ops import packed_spikes
from spikeback.ops.processes import mean_over_processes
from spikeback.shortcut import Schedule, ShortcutNet
from spikeback.train.processes import broadcast_state
from spikeback.train.recipe import BranchConfig, TrainConfig
from spikeback.train.start import prepare
from spikeback.values import from_text

SHARED = 32  # samples of the probe on which the branches' shares are measured
HELD_OUT = 0  # the first validation loader; the second has the test images
METRICS = ("train", "held_out", "test", "test_sum")
RECORD = ("total_steps", "history", "gradients", "step_seconds", "calibration", "first_loss")  # kept in the checkpoint
DIVERGED = 10  # times the loss at the start, or that of guessing if it is larger, is no training any more


class Task(L.LightningModule):
    """Train a ShortcutNet by one schedule and keep the record: history by epoch, gradient by block.

    Args:
        model: the network with its branches.
        schedule: progress i / I -> weight of the branches; i counts optimiser steps, I is kept in the checkpoint.
        branches, train: the recipe's options.
        seed: the global random state at the start of each epoch is a function of it and the epoch, so a resumed run
            continues as if it had not been interrupted.
        probe: images and labels on which the gradient of every block is measured, and the network calibrated.
        say: called with a line on what calibration was asked for and did not reach.

    The accuracy that counts is the main branch's alone.
    """

    def __init__(
        self,
        model: ShortcutNet,
        schedule: Schedule,
        branches: BranchConfig,
        train: TrainConfig,
        seed: int = 0,
        probe: tuple[Tensor, Tensor] | None = None,
        say: Callable[[str], None] = warnings.warn,
    ) -> None:
        super().__init__()
        self.model, self.schedule, self.branches, self.train_config, self.seed = model, schedule, branches, train, seed
        self.probe, self.say, self.criterion = probe, say, from_text(train.loss, Loss)
        net: Any = model.net
        self.metrics = torch.nn.ModuleDict(
            {f"{name}_accuracy": MulticlassAccuracy(net.num_classes, average="micro") for name in METRICS}
        )
        self.total_steps = 0
        self.history: dict[str, list[float]] = {}
        self.gradients: dict[str, Any] = {"blocks": block_names(net), "step": [], "norm": []}
        self.step_seconds: list[float] = []
        self.calibration: dict[str, Any] | None = None
        self.first_loss: float | None = None
        self._losses: list[Tensor] = []
        self._seconds: list[float] = []

    def weight(self, step: int) -> float:
        """Lambda at an optimiser step, by iteration or by epoch."""
        if self.branches.schedule_by == "epoch":
            per_epoch = self.total_steps // self.train_config.epochs
            return self.schedule(min(step, self.total_steps - 1) // per_epoch / self.train_config.epochs)
        return self.schedule(step / self.total_steps)

    def loss(self, x: Tensor, y: Tensor, step: int) -> tuple[Tensor, Tensor]:
        """Training loss at a step and the logits it judges."""
        weight = self.weight(step)
        main, side = self.model.heads(x, weight, self.criterion.per_step)
        return self.criterion(main, side, weight, y), self.criterion.judged(main, side, weight)

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        x, y = batch
        with packed_spikes() if self.train_config.packed_spikes else nullcontext():
            loss, logits = self.loss(x, y, self.global_step)
        known = torch.isfinite(x).all() & torch.isfinite(loss)  # neurons hide a NaN in x from the loss
        mean = mean_over_processes(loss.detach().where(known, math.nan))  # for one is so for all: all raise, none waits
        if not torch.isfinite(mean):
            if not torch.isfinite(x).all():
                raise TrainingError(
                    f"an image of the batch at step {self.global_step + 1} of {self.total_steps} holds NaN or "
                    "infinite numbers: look for it in the data, and repair it or leave it out"
                )
            raise TrainingError(
                f"the loss is {mean.item()} at step {self.global_step + 1} of {self.total_steps}: {self.advice()}"
            )
        if self.first_loss is None:
            self.first_loss = mean.item()
        self._losses.append(mean)
        if self.logger is not None:
            self.log("train/loss", mean)
        self.count("train", logits.detach(), y)
        return loss

    def advice(self) -> str:
        """What to do about numbers that are not finite, or absurd."""
        remedy = f"lower train.lr ({self.train_config.lr})"
        if self.trainer.precision != "32-true":
            remedy += " or use train.precision=32-true"
        return f"{remedy}, with another out=... ({self.schedule}, seed {self.seed})"

    def check_loss(self) -> None:
        """Raise TrainingError if the loss of most steps in the epoch's second half is absurd, finite as it may be."""
        late = sorted(loss.item() for loss in self._losses[len(self._losses) // 2 :])
        guess = math.log(self.metrics["train_accuracy"].num_classes)  # pyright: ignore
        start = max(guess, self.first_loss or 0.0)
        if late[len(late) // 2] > DIVERGED * start:
            raise TrainingError(
                f"the training has diverged: its loss is {late[len(late) // 2]:.2g} in epoch {self.current_epoch + 1}, "
                f"more than {DIVERGED} times the {start:.2g} of its start: {self.advice()}"
            )

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int, dataloader_idx: int = 0) -> None:
        x, y = batch
        if dataloader_idx == HELD_OUT:
            self.count("held_out", self.model(x, per_step=False), y)
            return
        weight = self.weight(self.global_step - 1)
        main, side = self.model.logits(x, per_step=False) if weight else (self.model(x, per_step=False), {})
        self.count("test", main, y)
        self.count("test_sum", main + weight * sum(side.values()), y)

    def count(self, name: str, logits: Tensor, y: Tensor) -> None:
        """Add the time-mean of logits (T, B, K) to an accuracy."""
        cast(MulticlassAccuracy, self.metrics[f"{name}_accuracy"]).update(logits.float().mean(0), y)

    def on_fit_start(self) -> None:
        total = int(self.trainer.estimated_stepping_batches)
        if self.total_steps not in (0, total):
            raise UsageError(
                f"the checkpoint was made for {self.total_steps} optimiser steps, this recipe has {total}; "
                "name another out=..."
            )
        self.total_steps = total

    def on_train_start(self) -> None:
        if self.global_step == 0:  # a checkpoint brings its gains and norms along
            self.calibrate()
            self.measure_gradients()

    def on_train_epoch_start(self) -> None:
        torch.manual_seed(self.seed * 1_000_003 + self.current_epoch)

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        if batch_idx % self.train_config.accumulate == 0:
            self._started = time.perf_counter()

    def optimizer_step(self, *args: Any, **options: Any) -> None:
        """The step, forward and backward pass in its closure; callbacks, the doctor's too, take their time after it."""
        super().optimizer_step(*args, **options)
        self._seconds.append(time.perf_counter() - self._started)

    def on_train_epoch_end(self) -> None:
        """Write the epoch's row, after validation and before the checkpoint."""
        if not all(torch.isfinite(p).all() for p in self.model.parameters()):
            raise TrainingError(
                f"the weights are no longer finite after step {self.global_step} of {self.total_steps}: {self.advice()}"
            )
        if not all(torch.isfinite(b).all() for b in self.model.buffers()):
            raise TrainingError(
                f"running statistics are no longer finite after step {self.global_step} of {self.total_steps}: "
                f"{self.advice()}"
            )
        self.check_loss()
        row = {
            "epoch": self.current_epoch + 1,
            "train_loss": torch.stack(self._losses).mean().item(),
            **{
                name: round(cast(MulticlassAccuracy, metric).compute().item(), 6)
                for name, metric in self.metrics.items()
            },
            "weight": self.weight(self.global_step - 1),
            "lr": self.optimizers().param_groups[0]["lr"],  # pyright: ignore
        }
        for name, value in row.items():
            self.history.setdefault(name, []).append(value)
        self.step_seconds.append(statistics.median(self._seconds))
        for metric in self.metrics.values():
            cast(MulticlassAccuracy, metric).reset()
        self._losses.clear()
        self._seconds.clear()
        self.measure_gradients()

    def calibrate(self) -> None:
        """Set gains and norm scales on the probe as the recipe asks, and keep what was set."""
        if self.probe is None:
            return
        x, y = (t.to(self.device) for t in self.probe)
        require_finite(self.model, x)
        with self.trainer.precision_plugin.forward_context():  # as in training
            found = prepare(self.model.net, x, y, self.train_config)
        if found is not None:
            self.calibration = found.as_dict()
            if note := self.calibration.get("note"):
                self.say(note)
            broadcast_state(self.model)  # processors may differ in a rounding, and so in what they measured

    def measure_gradients(self) -> None:
        """Append what the gradient on the probe is, for the loss of the step just done.

        That is the norm of dL/d(block output) by block, the distribution of the first layer's gradient, and what each
        branch supplies to the first block.
        """
        if self.probe is None or not self.gradients["blocks"]:
            return
        x, y = (t.to(self.device) for t in self.probe)
        last, net, record = max(self.global_step - 1, 0), self.model.net, self.gradients
        with self.trainer.precision_plugin.forward_context():  # as in training
            with undisturbed(net):
                net.train()
                found = propagate(net, record["blocks"], lambda: self.loss(x, y, last)[0])
            shares = self.first_block_shares(x, y, last)
        record["step"].append(self.global_step)
        record["norm"].append([*found.norms.values()])
        first = next(name for name, p in net.named_parameters() if p.ndim > 1)
        keep_histogram(record.setdefault("first_layer", {"name": first}), found.gradients.get(first))
        if shares:
            kept = record.setdefault("shares", {"sources": [*shares], "step": [], "first_block": []})
            kept["step"].append(self.global_step)
            kept["first_block"].append([*shares.values()])

    def first_block_shares(self, x: Tensor, y: Tensor, step: int) -> dict[str, float]:
        """What the main branch and every tap supply to the first block's gradient (Eq. 9); empty without branches."""
        weight, few = self.weight(step), min(SHARED, len(y))
        if not weight:
            return {}
        first, some = (
            self.gradients["blocks"][:1],
            x.narrow(int(x.ndim == 5), 0, few),
        )  # (B, C, H, W) or (T, B, C, H, W)
        (parts,) = decompose(self.model, some, y[:few], weight, self.criterion, first).values()
        return {source: part["share"] for source, part in parts.items()}

    def configure_optimizers(self) -> Any:
        """SGD or AdamW with decay of weights only, and a cosine to zero over all steps."""
        config = self.train_config
        parameters = [p for p in self.model.parameters() if p.requires_grad]
        groups = [
            {"params": [p for p in parameters if p.ndim > 1], "weight_decay": config.weight_decay},
            {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
        ]
        if config.optimizer == "adam":
            optimiser = torch.optim.AdamW(groups, config.lr, betas=(config.momentum, 0.999), fused=True)
        else:
            optimiser = torch.optim.SGD(groups, config.lr, config.momentum)
        total = int(self.trainer.estimated_stepping_batches)
        cosine = torch.optim.lr_scheduler.LambdaLR(
            optimiser, lambda step: 0.5 * (1 + math.cos(math.pi * min(step, total) / total))
        )
        return {"optimizer": optimiser, "lr_scheduler": {"scheduler": cosine, "interval": "step"}}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["record"] = {name: getattr(self, name) for name in RECORD}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        record = {"calibration": None, "first_loss": None} | checkpoint["record"]  # which earlier versions did not have
        for name in RECORD:
            setattr(self, name, record[name])
