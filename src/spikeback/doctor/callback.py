"""The doctor during training, as a Lightning callback."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Callback
from torch import Tensor, nn

from spikeback.doctor.calibrate import calibrate
from spikeback.doctor.measure.blocks import home
from spikeback.doctor.measure.case import Criterion, examine
from spikeback.doctor.measure.finite import require_finite
from spikeback.doctor.measure.gradients import propagate
from spikeback.errors import UsageError
from spikeback.foreign.undisturbed import undisturbed
from spikeback.losses import Loss
from spikeback.shortcut import ShortcutNet

KEPT = ("rate", "silent", "active")  # of a block's last spiking layer


class DoctorCallback(Callback):
    """Every n optimiser steps, one forward and backward pass on a fixed batch: gradient and activity of every block.

    `record` has lists, one entry a time: `step`, `loss`, and rows of one value a block: `gradient`, ||dL/d(output)||,
    `rate`, `silent` and `active` (`doctor.spikes.Layer`); `blocks` are their names. Checkpoints keep it. Every logger
    of the trainer (TensorBoard, ...) gets the same as `doctor/<what>/<block>`.

    Args:
        every_n_steps: n; before the first step it is measured, too.
        x: the batch, (B, ...) or (T, B, ...), on any device.
        y: its labels (B,).
        net: the network; None is the LightningModule's `model`, or itself without one.
        weight: step -> lambda, if that is a `ShortcutNet`; None is the LightningModule's `weight`, or 0 without one.
        blocks: dotted names inside the plain network; None is those of `feature_info`, else what can be inferred.
        recalibrate: options of `calibrate`, to be called on the batch before every measurement, e.g. {"gain": 1.0}.
        notify: called with every row of the record.
        loss: what is measured of; None is the LightningModule's `criterion`, or the cross-entropy without one.
    """

    def __init__(
        self,
        every_n_steps: int,
        x: Tensor,
        y: Tensor,
        net: nn.Module | None = None,
        weight: Callable[[int], float] | None = None,
        blocks: list[str] | None = None,
        recalibrate: dict[str, Any] | None = None,
        notify: Callable[[dict[str, Any]], None] | None = None,
        loss: Criterion | None = None,
    ) -> None:
        if every_n_steps < 1:
            raise UsageError(f"every_n_steps must be at least 1, got {every_n_steps}")
        self.every_n_steps, self.x, self.y, self.net, self.weight = every_n_steps, x, y, net, weight
        self.blocks, self.recalibrate, self.notify, self.loss = blocks, recalibrate, notify, loss
        self.record: dict[str, list[Any]] = {}

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        if trainer.global_step == 0:  # not in on_train_start: the module's own comes after it, and may calibrate
            self._measure_once(trainer, pl_module)

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self._measure_once(trainer, pl_module)

    def _measure_once(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        step = trainer.global_step
        if step % self.every_n_steps == 0 and self.record.get("step", [])[-1:] != [step]:  # accumulation repeats a step
            self.measure(trainer, pl_module)

    def measure(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Append a row to the record and hand it to the loggers."""
        model = self.net or getattr(pl_module, "model", pl_module)
        net = model.net if isinstance(model, ShortcutNet) else model
        x, y, step = self.x.to(pl_module.device), self.y.to(pl_module.device), trainer.global_step
        require_finite(model, x, y)  # the branches too
        if self.recalibrate is not None:
            with trainer.precision_plugin.forward_context():
                calibrate(net, x, y, **{"blocks": self.blocks, **self.recalibrate})
        own = getattr(pl_module, "criterion", None)
        case = examine(net, x, y, blocks=self.blocks, loss=self.loss or (own if isinstance(own, Loss) else None))
        of = self.weight or getattr(pl_module, "weight", None)
        whole = replace(case, net=model, weight=of(max(step - 1, 0)) if callable(of) and model is not net else 0.0)
        with undisturbed(model), trainer.precision_plugin.forward_context():
            model.train()
            found = propagate(net, case.blocks, whole.loss, case.layers, case.batch, layout=case.layout)
        last = {home(layer.name, case.blocks): layer for layer in found.layers}
        rows = {key: [getattr(last.get(block), key, None) for block in case.blocks] for key in KEPT}
        row = {"step": step, "loss": found.loss, "gradient": [*found.norms.values()], **rows}
        self.record["blocks"] = case.blocks
        for key, value in row.items():
            self.record.setdefault(key, []).append(value)
        self._tell(trainer, row)

    def _tell(self, trainer: L.Trainer, row: dict[str, Any]) -> None:
        if self.notify is not None:
            self.notify(row)
        named = {key: zip(self.record["blocks"], row[key], strict=True) for key in ("gradient", *KEPT)}
        values = {f"doctor/{key}/{b}": v for key, pairs in named.items() for b, v in pairs if v is not None}
        for logger in trainer.loggers:
            logger.log_metrics(values, row["step"])

    def state_dict(self) -> dict[str, Any]:
        return {"record": self.record}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.record = state_dict["record"]
