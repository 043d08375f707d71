"""What a trial leaves while it runs: checkpoints that appear whole or not at all, and a log of events."""

import io
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from lightning.pytorch.plugins.io import TorchCheckpointIO

from spikeback.errors import UsageError
from spikeback.files import write_atomic
from spikeback.train.recipe import Method

LAST, BEST = "last.ckpt", "best.ckpt"


class AtomicCheckpointIO(TorchCheckpointIO):
    """Write beside the target and rename, on the same file system: a killed run leaves the checkpoint before."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any | None = None) -> None:
        buffer = io.BytesIO()
        try:
            torch.save(checkpoint, buffer)
        except RuntimeError as error:  # Ctrl-C breaks off the archive, whose complaint then hides the Ctrl-C
            raise error.__context__ or error from None
        write_atomic(path, buffer.getvalue())


class Checkpoint(ModelCheckpoint):
    """Keep one checkpoint, `name`.ckpt, of the last epoch or of that with the highest `monitor`, with `card`: plain
    facts on the network. (Lightning's `save_last` writes a last one only together with a new best.)
    """

    def __init__(self, folder: Path, name: str, card: dict[str, Any], monitor: str | None = None) -> None:
        super().__init__(
            folder,
            filename=name.removesuffix(".ckpt"),
            monitor=monitor,
            mode="max",
            save_on_train_epoch_end=True,
            enable_version_counter=False,
            auto_insert_metric_name=False,
        )
        self.card = card

    def state_dict(self) -> dict[str, Any]:
        return super().state_dict() | {"card": self.card}


class EventLog(Callback):
    """One JSON line for each thing that happened to a trial: started, resumed, epoch, finished."""

    def __init__(self, path: Path, method: Method, seed: int) -> None:
        self.path, self.trial = path, {"method": method.name, "seed": seed}

    def write(self, event: str, **values: Any) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        line = {"time": datetime.now(UTC).isoformat(timespec="seconds"), "event": event, **self.trial, **values}
        with self.path.open("a") as f:
            f.write(json.dumps(line) + "\n")

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.write("resumed" if trainer.global_step else "started", step=trainer.global_step)

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.write("epoch", epoch=trainer.current_epoch + 1, step=trainer.global_step)


def read_checkpoint(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """The state dict of the Task and the card of a checkpoint.

    Raises:
        UsageError: no such file, or not a checkpoint of ours.
    """
    if not path.is_file():
        raise UsageError(f"no checkpoint {path}; train first, or name a trial's folder")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
        card = next(state["card"] for state in content["callbacks"].values() if "card" in state)
        return content["state_dict"], card
    except Exception as error:  # whatever unpickling a foreign file may raise
        raise UsageError(f"{path} is not a spikeback checkpoint ({type(error).__name__})") from error
