"""The data module: a dataset, what is held out of it, and its three loaders."""

from dataclasses import dataclass
from typing import Any

import lightning
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from spikeback.data.augment import AugmentedDataset, EpochSampler, PictureDataset
from spikeback.data.load import SOURCES, load
from spikeback.data.pictures import Pictures, PictureSet, channel_statistics, normalise
from spikeback.data.split import balanced_order, hold_out, split_hash
from spikeback.errors import UsageError


@dataclass
class DataConfig:
    """Which pictures to train on, and how they are batched.

    Args:
        name: The dataset: embedded (the Fashion-MNIST subset in the package), fashion-mnist (the whole set where
            installed, else the subset) or folder (a tree of pictures).
        root: The folder with the dataset's files; for folder: train/<class>/ and test/<class>/, or <class>/ alone.
        size: Scale every picture to size x size pixels; needed where pictures differ in size.
        batch_size: Pictures in a training batch; the last, incomplete batch of an epoch is left out.
        held_out: Fraction of every class's training pictures that is set aside to choose the best epoch on.
        split_seed: Seed of that choice, the same for every trial.
        crop_padding: Augmentation: shift by up to so many pixels in each direction; 0 switches it off.
        flip: Augmentation: mirror every other picture at random.
        num_workers: Processes that prepare batches; the batches are the same for any number.
        limit: Train on the first so many pictures only, classes balanced; all if there are fewer.
    """

    name: str = "embedded"
    root: str | None = None
    size: int | None = None
    batch_size: int = 128
    held_out: float = 0.1
    split_seed: int = 0
    crop_padding: int = 4
    flip: bool = True
    num_workers: int = 0
    limit: int | None = None

    def __post_init__(self) -> None:
        if self.name not in SOURCES:
            raise UsageError(f"--data.name '{self.name}' is unknown; choose from {', '.join(SOURCES)}")
        least = {"size": 1, "batch_size": 1, "split_seed": 0, "crop_padding": 0, "num_workers": 0, "limit": 1}
        for option, bound in least.items():
            value = getattr(self, option)
            if value is not None and value < bound:
                raise UsageError(f"--data.{option} must be at least {bound}, not {value}")
        if not 0 <= self.held_out < 1:
            raise UsageError(f"--data.held_out must be a fraction, 0 <= held_out < 1, not {self.held_out}")


class DataModule(lightning.LightningDataModule):
    """Loads the pictures `config` asks for, unless given as `picture_set`, and serves them in batches.

    A batch is (x, y): float32 (B, C, H, W), mean 0 and variance 1 per channel over the training pictures, and int64
    (B,). `seed` and the epoch decide order and augmentation, nothing else does. `use_all` holds nothing out: the test
    pictures then stand in for the held-out ones (the authors' rule: best on test).

    After `setup`: `classes`, `shape` (C, H, W), `sizes` {"train", "held_out", "test"}, `mean` and `std` (C,), `hash`
    of the dataset and `split_hash` of the held-out indices.
    """

    classes: tuple[str, ...]
    shape: tuple[int, int, int]
    sizes: dict[str, int]
    mean: Tensor
    std: Tensor
    hash: str
    split_hash: str

    def __init__(
        self, config: DataConfig, seed: int, picture_set: PictureSet | None = None, use_all: bool = False
    ) -> None:
        super().__init__()
        self.config, self.seed, self.use_all = config, seed, use_all
        self._pictures = picture_set
        self._ready = False

    def setup(self, stage: str | None = None) -> None:
        """Load and split once, whatever the stage. Raises UsageError if there are too few pictures for one batch."""
        if self._ready:
            return
        config = self.config
        self.pictures = pictures = self._pictures or load(config.name, config.root, config.size)
        labels = pictures.train.labels
        train, self._held_out = hold_out(labels, 0.0 if self.use_all else config.held_out, config.split_seed)
        self._train = train[balanced_order(labels[train])[: config.limit].sort().values]
        if len(self._train) < config.batch_size:
            most = len(self._train)
            raise UsageError(
                f"--data.batch_size {config.batch_size} is more than the training pictures; give at most {most}"
            )
        self.classes, self.hash, self.split_hash = pictures.classes, pictures.hash(), split_hash(self._held_out)
        channels, height, width = pictures.train.images.shape[1:]
        self.shape = (channels, height, width)
        self.sizes = {"train": len(self._train), "held_out": len(self._held_out), "test": len(pictures.test)}
        self.mean, self.std = channel_statistics(pictures.train.images[self._train])
        self._ready = True

    def train_dataloader(self) -> DataLoader[tuple[Tensor, Tensor]]:
        """Augmented, shuffled anew each epoch, only whole batches. Outside Lightning: call `sampler.set_epoch`."""
        config = self.config
        augmentation = {"seed": self.seed, "padding": config.crop_padding, "flip": config.flip}
        dataset = AugmentedDataset(self.pictures.train, self._train, self.mean, self.std, **augmentation)
        return self._loader(dataset, config.batch_size, sampler=EpochSampler(len(dataset), self.seed), drop_last=True)

    def val_dataloader(self) -> DataLoader[tuple[Tensor, Tensor]]:
        """The held-out pictures; with `use_all` the test pictures. Raises UsageError if nothing was held out."""
        if self.use_all:
            return self.test_dataloader()
        if not len(self._held_out):
            raise UsageError("--data.held_out 0 leaves nothing to choose the best epoch on; try a fraction such as 0.1")
        return self._evaluation(self.pictures.train, self._held_out)

    def test_dataloader(self) -> DataLoader[tuple[Tensor, Tensor]]:
        """The test pictures, in their order."""
        return self._evaluation(self.pictures.test, torch.arange(len(self.pictures.test)))

    def probe(self, n: int) -> tuple[Tensor, Tensor]:
        """The first n training pictures, un-augmented, dealt out class by class: the same in every run and epoch."""
        part = self.pictures.train
        chosen = self._train[balanced_order(part.labels[self._train])[:n]]
        return normalise(part.images[chosen], self.mean, self.std), part.labels[chosen]

    def describe(self) -> dict[str, Any]:
        """The `dataset` object of results.json."""
        return {
            "name": self.pictures.name,
            "provenance": self.pictures.provenance,
            "shape": list(self.shape),
            "classes": list(self.classes),
            **self.sizes,
            "hash": self.hash,
            "split_hash": self.split_hash,
        }

    def _evaluation(self, pictures: Pictures, indices: Tensor) -> DataLoader[tuple[Tensor, Tensor]]:
        dataset = PictureDataset(pictures, indices, self.mean, self.std)
        return self._loader(dataset, 2 * self.config.batch_size)  # no backward pass: room for twice as many

    def _loader(self, dataset: PictureDataset, batch_size: int, **options: Any) -> DataLoader[tuple[Tensor, Tensor]]:
        workers = self.config.num_workers
        return DataLoader(
            dataset,
            batch_size,
            num_workers=workers,
            persistent_workers=workers > 0,
            collate_fn=_whole,
            generator=torch.Generator(),  # else every pass over the loader draws from the global one
            pin_memory=torch.cuda.is_available(),
            **options,
        )


def _whole(batch: Any) -> Any:
    """The dataset returns whole batches: nothing is left to collate."""
    return batch
