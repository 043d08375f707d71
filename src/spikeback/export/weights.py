"""A trained network read back from its checkpoint."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn, tensor

from spikeback.data import DataModule, DataSet
from spikeback.data.sets.source import find
from spikeback.errors import ImportNeeded, UsageError
from spikeback.files import as_path
from spikeback.shortcut import ShortcutNet
from spikeback.train import Recipe
from spikeback.train.checkpoint import read_checkpoint
from spikeback.train.environment import resolve_precision
from spikeback.train.foreign import BEST, EXAMPLE, LAST
from spikeback.train.start import add_branches, build_network


@dataclass
class Trained:
    """The network in evaluation mode, its branches still there, and what it needs to be used."""

    path: Path
    model: ShortcutNet
    recipe: Recipe
    method: str
    seed: int
    classes: list[str]
    shape: tuple[int, ...]  # (C, H, W), or (T, 2, H, W) of frames
    mean: Tensor
    std: Tensor
    weights: list[float]  # lambda at the last step of each epoch so far

    @property
    def net(self) -> nn.Module:
        """The plain network."""
        return self.model.strip()

    @property
    def precision(self) -> str:
        """That of the training: with another, a few spikes and so a few predictions differ."""
        return resolve_precision(self.recipe.train.precision)

    def logits(self, x: Tensor) -> Tensor:
        """(B, K): mean over time, in the precision of the training."""
        with self.inference():
            return self.net(x).float().mean(0)

    @contextmanager
    def inference(self) -> Iterator[None]:
        """Without autograd, in the precision of the training."""
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=self.precision == "bf16-mixed"):
            yield

    def view(self, path: Path) -> Tensor:
        """An image, uint8 (C, H, W), scaled and cropped as those that the network was tested on.

        Raises UsageError if it is broken.
        """
        return find(self.recipe.data.name).view(path, self.shape)

    def data(self, root: str | None, images: DataSet | None = None) -> DataModule:
        """The data it was trained on, from the folder `root` if one is given, normalised as in training.

        `images` are those of another trial of the same recipe, so that they are read once.
        """
        if root:
            config = self.recipe.data
            if find(config.name).origin(config.events).root == "none":
                raise UsageError(
                    f"data.root={root} has no use: {self.path} was trained on the images in the package; leave it out"
                )
            config.root = root
        data = DataModule(self.recipe.data, self.seed, images, self.recipe.train.best_on == "test")
        data.setup()
        data.mean, data.std = self.mean, self.std  # whatever the data
        self.check_data(data.classes, data.shape)
        return data

    def check_data(self, classes: tuple[str, ...], shape: tuple[int, ...]) -> None:
        """Raises UsageError if the data has other classes or shapes than the network was trained on."""
        if tuple(shape) != self.shape:
            raise UsageError(f"{self.path} was trained on images of shape {self.shape}, the data has {tuple(shape)}")
        if list(classes) != self.classes:
            raise UsageError(
                f"{self.path} was trained on {len(self.classes)} classes ({', '.join(self.classes)}), the data has "
                f"{len(classes)} ({', '.join(classes)})"
            )


def load_trained(run: str, which: str) -> Trained:
    """Read the checkpoint of a trial. Raises UsageError that names the file and the choices."""
    paths = checkpoints(as_path(run), f"{which}.ckpt")
    if len(paths) != 1:
        trials = ", ".join(str(path.parent) for path in paths)
        raise UsageError(f"{run} has {len(paths)} trials with {which}.ckpt: choose from {trials}")
    return read_trained(paths[0])


def read_trained(path: Path) -> Trained:
    """Read a checkpoint and build its network. Raises UsageError that names the file."""
    content = read_checkpoint(path)
    card = content.card
    try:
        recipe = Recipe.from_dict(card["recipe"])
        *steps, channels, _, _ = card["shape"]
        facts = card["method"], card["seed"], card["classes"], tuple(card["shape"])
        mean, std, weights = tensor(card["mean"]), tensor(card["std"]), content.record["history"]["weight"]
        model = add_branches(build_network(recipe.model, len(card["classes"]), channels, *steps), recipe.branches)
    except ImportNeeded as error:
        raise UsageError(f"{path}: {error}") from error
    except (KeyError, TypeError, ValueError, AttributeError, RuntimeError) as error:  # a UsageError is a ValueError
        raise UsageError(
            f"{path} is of another version of spikeback, which its run's results.json names ({error}); read it with "
            "that version"
        ) from error
    try:
        model.load_state_dict(content.model)
    except RuntimeError as error:
        first = str(error).splitlines()[1].strip()
        raise UsageError(f"{path}: the weights do not fit {recipe.model.name}: {first}") from error
    return Trained(path, model.eval(), recipe, *facts, mean, std, weights)


def checkpoints(run: Path, name: str) -> list[Path]:
    """The checkpoint file, that of a trial, or those of all trials of a run. Raises UsageError if there is none."""
    if run.is_file():
        return [run]
    if not run.is_dir():
        raise UsageError(f"no run {run}: {EXAMPLE}")
    found = [run / name] if (run / name).is_file() else sorted(run.glob(f"*/{name}"))
    if not found:
        raise UsageError(f"{run} has 0 trials with {name}; {_near(run, name)}")
    return found


def _near(run: Path, name: str) -> str:
    """What to give instead of a folder in which no such checkpoint lies."""
    other = LAST if name == BEST else BEST
    if (run / other).is_file() or any(run.glob(f"*/{other}")):
        return f"it has {other}: add checkpoint={Path(other).stem}"
    deeper = sorted({path.parent for path in run.glob(f"*/*/{name}")})
    return f"did you mean {' or '.join(map(str, deeper[:3]))}?" if deeper else EXAMPLE
