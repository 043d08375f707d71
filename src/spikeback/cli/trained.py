"""A trained network read back from its checkpoint."""

from dataclasses import dataclass
from pathlib import Path

import torch
from jsonargparse import ArgumentParser
from torch import Tensor, nn, tensor

from spikeback.data import DataModule
from spikeback.errors import UsageError
from spikeback.train import Recipe
from spikeback.train.checkpoint import read_checkpoint
from spikeback.train.environment import resolve_precision


@dataclass
class Trained:
    """The plain network in evaluation mode, and what it needs to be used."""

    path: Path
    net: nn.Module
    recipe: Recipe
    seed: int
    classes: list[str]
    shape: tuple[int, ...]  # (C, H, W), or (T, 2, H, W) of frames
    mean: Tensor
    std: Tensor

    @property
    def precision(self) -> str:
        """That of the training: with another, a few spikes and so a few predictions differ."""
        return resolve_precision(self.recipe.train.precision)

    def logits(self, x: Tensor) -> Tensor:
        """(B, K): mean over time, in the precision of the training."""
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=self.precision == "bf16-mixed"):
            return self.net(x).float().mean(0)

    def data(self, root: str | None) -> DataModule:
        """The data it was trained on, from the folder `root` if one is given, normalised as in training."""
        if root:
            self.recipe.data.root = root
        data = DataModule(self.recipe.data, self.seed, use_all=self.recipe.train.best_on == "test")
        data.setup()
        data.mean, data.std = self.mean, self.std  # whatever the data
        self.check_data(data.classes, data.shape)
        return data

    def check_data(self, classes: tuple[str, ...], shape: tuple[int, ...]) -> None:
        """Raises UsageError if the data has other classes or shapes than the network was trained on."""
        if tuple(shape) != self.shape:
            raise UsageError(f"{self.path} was trained on pictures of shape {self.shape}, the data has {tuple(shape)}")
        if list(classes) != self.classes:
            raise UsageError(
                f"{self.path} was trained on {len(self.classes)} classes ({', '.join(self.classes)}), the data has "
                f"{len(classes)} ({', '.join(classes)})"
            )


def add_trained(parser: ArgumentParser) -> None:
    """RUN and --checkpoint."""
    parser.add_argument("run", type=str, help="a trial's folder, a run's folder with one trial, or a checkpoint file")
    parser.add_argument("--checkpoint", choices=["best", "last"], default="best", help="which checkpoint of the trial")


def load_trained(run: str, which: str) -> Trained:
    """Read a checkpoint and build its plain network. Raises UsageError that names the file and the choices."""
    path = _checkpoint(Path(run), f"{which}.ckpt")
    weights, card = read_checkpoint(path)
    try:
        recipe = Recipe.from_dict(card["recipe"])
    except (KeyError, TypeError) as error:
        raise UsageError(f"{path}: the recipe is of another version of spikeback ({error})") from error
    *steps, channels, _, _ = card["shape"]
    net = recipe.model.build(len(card["classes"]), channels, *steps)
    try:
        net.load_state_dict(weights)
    except RuntimeError as error:
        first = str(error).splitlines()[1].strip()
        raise UsageError(f"{path}: the weights do not fit {recipe.model.name}: {first}") from error
    return Trained(
        path, net.eval(), recipe, card["seed"], card["classes"], tuple(card["shape"]),
        tensor(card["mean"]), tensor(card["std"]),
    )  # fmt: skip


def _checkpoint(run: Path, name: str) -> Path:
    if run.is_file():
        return run
    if not run.is_dir():
        raise UsageError(f"no run {run}: name a trial's folder, e.g. runs/demo/evolutionary-seed0")
    found = [run / name] if (run / name).is_file() else sorted(run.glob(f"*/{name}"))
    if len(found) != 1:
        trials = ", ".join(str(p.parent) for p in found)
        raise UsageError(f"{run} has {len(found)} trials with {name}" + (f": choose from {trials}" if found else ""))
    return found[0]
