"""What a trial leaves while it runs: checkpoints that appear whole or not at all, and a log of events."""

import io
import json
import zipfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple, cast

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback, Checkpoint
from lightning.pytorch.plugins.io import TorchCheckpointIO
from torch import Tensor

from spikeback.errors import UsageError
from spikeback.files import append_line, write_atomic
from spikeback.train.foreign import BEST, EMPTY, EXAMPLE, LAST, LIGHTNING, OTHER, PREVIOUS, instead, kind_of
from spikeback.train.recipe import Method
from spikeback.values import json_ready


class AtomicCheckpointIO(TorchCheckpointIO):
    """Write beside the target and rename, on the same file system: a killed run leaves the checkpoint before.

    Of `last.ckpt` the one before stays in any case, as `previous.ckpt`.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any | None = None) -> None:
        buffer = io.BytesIO()
        try:
            torch.save(checkpoint, buffer)
        except RuntimeError as error:  # Ctrl-C breaks off the archive, whose complaint then hides the Ctrl-C
            raise error.__context__ or error from None
        path = Path(path)
        write_atomic(path, buffer.getvalue(), path.with_name(PREVIOUS) if path.name == LAST else None)


class Checkpoints(Checkpoint):
    """After every epoch write `last.ckpt`, and then `best.ckpt` if the held-out accuracy is the highest so far.

    Of equals the first is best. Both carry `card`: plain facts on the network. The task's own history decides, so the
    folder may be moved. The order lets `resume.keep_best` write what a kill between the two left out.
    """

    def __init__(self, folder: Path, card: dict[str, Any]) -> None:
        self.folder, self.card = folder, card

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        trainer.save_checkpoint(self.folder / LAST)
        *before, now = cast(Any, pl_module).history["held_out_accuracy"]
        if all(now > accuracy for accuracy in before):
            trainer.save_checkpoint(self.folder / BEST)

    def state_dict(self) -> dict[str, Any]:
        return {"card": self.card}


class EventLog(Callback):
    """One JSON line for each thing that happened to a trial: started, resumed, recovered, epoch, finished.

    Without a `path` none: another process writes them. `augmented`: what is done to the training samples, noted at the
    start.
    """

    def __init__(self, path: Path | None, method: Method, seed: int, augmented: str = "") -> None:
        self.path, self.trial, self.augmented = path, {"method": method.name, "seed": seed}, augmented

    def write(self, event: str, **values: Any) -> None:
        if self.path is None:
            return
        line = {"time": datetime.now(UTC).isoformat(timespec="seconds"), "event": event, **self.trial, **values}
        append_line(self.path, json.dumps(json_ready(line)))

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        event = "resumed" if trainer.global_step else "started"
        self.write(event, step=trainer.global_step, augmentation=self.augmented)

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.write("epoch", epoch=trainer.current_epoch + 1, step=trainer.global_step)


class Content(NamedTuple):
    """A checkpoint: weights of the network with its branches (those of ShortcutNet), card, record of the training."""

    model: dict[str, Tensor]
    card: dict[str, Any]
    record: dict[str, Any]  # train.task.RECORD

    @property
    def net(self) -> dict[str, Tensor]:
        """The weights of the plain network."""
        return _below(self.model, "net.")


def read_checkpoint(path: Path) -> Content:
    """What a checkpoint holds, but for the optimiser.

    Raises:
        UsageError: no such file, or not a checkpoint of ours, or a damaged one: says what it is, and what to give.
    """
    if not path.is_file():
        raise UsageError(f"no checkpoint {path}; {EXAMPLE}")
    try:
        with zipfile.ZipFile(path) as archive:  # torch.load takes numbers whose checksum is wrong
            if damaged := archive.testzip():
                raise zipfile.BadZipFile(f"checksum of {damaged}")
        content = torch.load(path, map_location="cpu", weights_only=True)
        card = next(state["card"] for state in content["callbacks"].values() if "card" in state)
        return Content(_below(content["state_dict"], "model."), card, content["record"])
    except (MemoryError, PermissionError):  # say nothing about the file
        raise
    except Exception as error:  # whatever unpickling a foreign file may raise
        kind, more = kind_of(path), ""
        if path.suffix == ".ckpt" and kind in (EMPTY, OTHER):
            more = "; if it was one, it is damaged"
        elif kind == LIGHTNING:
            more = (
                " (it holds no spikeback settings; build its network with its own code, and spikeback.diagnose(net, x, "
                "y) examines it)"
            )
        what = "is not a spikeback checkpoint, or not of this version, but"
        raise UsageError(f"{path} {what} {kind}{more}; {instead(path)}") from error


def _below(weights: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in weights.items() if name.startswith(prefix)}
