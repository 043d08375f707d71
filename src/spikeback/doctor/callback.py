"""The doctor during training, as a Lightning callback."""

from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Callback
from torch import Tensor, nn

from spikeback.doctor.calibrate import calibrate
from spikeback.doctor.case import examine
from spikeback.doctor.measure import propagate
from spikeback.doctor.undisturbed import undisturbed
from spikeback.errors import UsageError

KEPT = ("rate", "silent", "active")  # of a block's last spiking layer


class DoctorCallback(Callback):
    """Every n optimiser steps, one forward and backward pass on a fixed batch: gradient and activity of every block.

    `record` has lists, one entry a time: `step`, `loss`, and one value a block of `gradient` (||dL/d output||), `rate`,
    `silent` and `active`; `blocks` are their names. It is kept in checkpoints. Every logger of the trainer (TensorBoard, ...)
    gets the same as `doctor/<what>/<block>`.

    Args:
        every_n_steps: n.
        x, y: the batch, on any device.
        net: the network; None is the LightningModule's `model`, or itself without one.
        blocks: dotted names; None is those of `feature_info`, else what can be inferred.
        recalibrate: also call `calibrate(net, x, y, **recalibrate)` before each measurement, e.g. {"gain": 1.0}.
    """

    def __init__(
        self,
        every_n_steps: int,
        x: Tensor,
        y: Tensor,
        net: nn.Module | None = None,
        blocks: list[str] | None = None,
        recalibrate: dict[str, Any] | None = None,
    ) -> None:
        if every_n_steps < 1:
            raise UsageError(f"every_n_steps must be at least 1, got {every_n_steps}")
        self.every_n_steps, self.x, self.y, self.net, self.blocks = every_n_steps, x, y, net, blocks
        self.recalibrate = recalibrate
        self.record: dict[str, list[Any]] = {}

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if trainer.global_step == 0:
            self.measure(trainer, pl_module)

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        step = trainer.global_step
        if step % self.every_n_steps == 0 and self.record.get("step", [])[-1:] != [step]:  # accumulation repeats a step
            self.measure(trainer, pl_module)

    def measure(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Append a row to the record and hand it to the loggers."""
        model = self.net or getattr(pl_module, "model", pl_module)
        net = getattr(model, "net", model)
        x, y = self.x.to(pl_module.device), self.y.to(pl_module.device)
        if self.recalibrate is not None:
            calibrate(net, x, y, **self.recalibrate)
        with undisturbed(net), trainer.precision_plugin.forward_context():
            net.train()
            case = examine(net, x, y, blocks=self.blocks)
            found = propagate(net, case.blocks, case.loss, case.layers, case.batch)
        last = {block: layer for layer in found.layers for block in case.blocks if layer.name.startswith(f"{block}.")}
        rows: dict[str, list[Any]] = {"gradient": [*found.norms.values()]}
        rows |= {key: [getattr(last.get(block), key, None) for block in case.blocks] for key in KEPT}
        self.record["blocks"] = case.blocks
        for key, value in {"step": trainer.global_step, "loss": found.loss, **rows}.items():
            self.record.setdefault(key, []).append(value)
        values = {f"doctor/{key}/{b}": v for key, row in rows.items() for b, v in zip(case.blocks, row, strict=True)}
        for logger in trainer.loggers:
            logger.log_metrics({k: v for k, v in values.items() if v is not None}, trainer.global_step)

    def state_dict(self) -> dict[str, Any]:
        return {"record": self.record}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.record = state_dict["record"]
