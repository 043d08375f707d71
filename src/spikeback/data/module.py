"""The data module: a dataset, what is held out of it, and its three loaders."""

from dataclasses import asdict
from typing import Any

import lightning
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from spikeback.data.augment import Augmentation, AugmentedDataset, BatchDataset, EpochSampler, RandomViews, in_words
from spikeback.data.config import EIGHTH, DataConfig
from spikeback.data.images import DataSet, Split, as_input, channel_statistics
from spikeback.data.load import load
from spikeback.data.loader import Batch, Loader, whole
from spikeback.data.ranks import ProcessRank
from spikeback.data.sets.source import find
from spikeback.data.split import balanced_order, hold_out, split_hash
from spikeback.errors import UsageError
from spikeback.processors import processors


class DataModule(lightning.LightningDataModule):
    """Loads the samples `config` asks for, unless given as `dataset`, and serves them in batches.

    A batch of images is (x, y): float32 (B, C, H, W), normalised by the mean and deviation of each channel, and int64
    (B,); of event frames: float32 (T, B, 2, H, W), counts, and int64 (B,). `seed` and the epoch decide order and
    augmentation, nothing else does. `use_all` holds nothing out: the test samples then stand in for the held-out ones
    (the authors' rule: best on test). `process` is the rank of this process, where several train one network.

    After `setup`: `classes`, `shape` (C, H, W) or (T, 2, H, W), `channels`, `time_steps` (None for images), `sizes`
    {"train", "held_out", "test"}, `mean` and `std` (C,): published if the dataset has such, else those of the training
    images; `augmentation` and, in words, `augmented`; `mirror`, the axis that flipping reverses, None where nothing
    is flipped; `notes` on the dataset; `hash` of the dataset and `split_hash` of the held-out indices.
    """

    classes: tuple[str, ...]
    shape: tuple[int, ...]
    sizes: dict[str, int]
    mean: Tensor
    std: Tensor
    augmentation: Augmentation
    mirror: int | None
    notes: tuple[str, ...]
    hash: str
    split_hash: str

    def __init__(
        self,
        config: DataConfig,
        seed: int,
        dataset: DataSet | None = None,
        use_all: bool = False,
        process: ProcessRank | None = None,
    ) -> None:
        super().__init__()
        self.config, self.seed, self.use_all, self.process = config, seed, use_all, process or ProcessRank()
        self._dataset = dataset
        self._ready = False

    @property
    def channels(self) -> int:
        """C of an image or frame."""
        return self.shape[-3]

    @property
    def time_steps(self) -> int | None:
        """T of frames; an image has none of its own."""
        return self.shape[0] if len(self.shape) == 4 else None

    def setup(self, stage: str | None = None) -> None:
        """Load and split once, whatever the stage. Raises UsageError for too few samples, or options unfit for them."""
        if self._ready:
            return
        config = self.config
        self.images = dataset = self._dataset or load(
            config.name, config.root, config.size, download=config.download, unchecked=config.unchecked,
            cache=config.cache, split=config.split, events=config.events, only=self._needed,
        )  # fmt: skip
        self._train, self._held_out = self._divide(dataset)
        self.classes, self.shape = dataset.classes, dataset.train.shape
        self._check_options()
        self.mirror, self.notes = self._mirror(dataset), getattr(dataset, "notes", ())
        self.augmentation, self.hash = self._augmentation(), dataset.hash()
        self.split_hash = split_hash(self._held_out)
        self.sizes = {"train": len(self._train), "held_out": len(self._held_out), "test": len(dataset.test)}
        self.mean, self.std = self._statistics(dataset)
        self._ready = True

    def _divide(self, dataset: DataSet) -> tuple[Tensor, Tensor]:
        """(train, held out): which of the dataset's training samples are trained on, which the best is chosen on."""
        config, labels = self.config, dataset.train.labels
        given = getattr(dataset, "held_out", None)
        if given is None:
            train, held_out = hold_out(labels, 0.0 if self.use_all else config.held_out, config.split_seed)
        else:  # never trained on, whether they are used or not
            others = torch.ones(len(labels), dtype=torch.bool).index_fill(0, given, False)
            train, held_out = others.nonzero().flatten(), given[:0] if self.use_all else given
        train = train[balanced_order(labels[train])[: config.limit].sort().values]
        if len(train) < config.batch_size:
            most = len(train)
            raise UsageError(
                f"data.batch_size={config.batch_size} is more than the training images; give at most {most}"
            )
        return train, held_out

    def _needed(self, dataset: DataSet) -> Tensor:
        return torch.cat(self._divide(dataset))

    def _check_options(self) -> None:
        frames = self.time_steps is not None
        if frames:
            self.config.check_for_frames()
        self.config.check_for_side(frames, min(self.shape[-2:]))

    def _mirror(self, dataset: DataSet) -> int | None:
        axis = getattr(dataset, "mirror", -1 if self.time_steps is None else None)
        if self.config.flip and axis is None:
            raise UsageError(f"data.flip=True is wrong for {dataset.name}: a mirrored sample may be of another class")
        flip = getattr(dataset, "symmetric", True) if self.config.flip is None else self.config.flip
        return axis if flip else None

    def _augmentation(self) -> Augmentation:
        config, frames = self.config, self.time_steps is not None
        padding = min(self.shape[-2:]) // EIGHTH if config.crop_padding is None else config.crop_padding
        return Augmentation(
            self.seed, 0 if frames else padding, self.mirror is not None, config.auto_augment, config.cutout,
            config.events.roll if frames else 0, -1 if self.mirror is None else self.mirror,
        )  # fmt: skip

    @property
    def augmented(self) -> str:
        """What is done to the training samples, in one line."""
        text = in_words(self.augmentation, isinstance(self.images.train, RandomViews), min(self.shape[-2:]))
        unknown = self.config.flip is None and not getattr(self.images, "symmetric", True)
        return f"{text} (data.flip=True mirrors half of them, if their classes allow it)" if unknown else text

    def _statistics(self, dataset: DataSet) -> Batch:
        if self.time_steps is not None:  # counts of events are left as they are
            return torch.zeros(self.channels), torch.ones(self.channels)
        if published := getattr(dataset, "statistics", None):
            mean, std = published
            return torch.tensor(mean), torch.tensor(std)
        return channel_statistics(dataset.train.read(self._train))

    def train_dataloader(self) -> DataLoader[Batch]:
        """Augmented, shuffled anew each epoch, only whole batches. Outside Lightning: call `sampler.set_epoch`."""
        config = self.config
        dataset = AugmentedDataset(self.images.train, self._train, self.mean, self.std, self.augmentation)
        sampler = EpochSampler(len(dataset), self.seed, self.process, config.batch_size)
        micro_batch = self.process.micro_batch(config.batch_size)
        return self._loader(dataset, micro_batch, config.auto_augment, sampler=sampler, drop_last=True)

    def val_dataloader(self) -> DataLoader[Batch]:
        """The held-out samples; with `use_all` the test samples. Raises UsageError if nothing was held out."""
        if self.use_all:
            return self.test_dataloader()
        if not len(self._held_out):
            raise UsageError(self._nothing_held_out())
        return self._evaluation(self.images.train, self._held_out)

    def _nothing_held_out(self) -> str:
        test = "choose it on the test images: train.best_on=test"
        if self.config.held_out:  # every class keeps its last image for training
            return (
                f"each class has one training image, so none is left to choose the best epoch on; add some, or {test}"
            )
        return f"data.held_out=0 leaves nothing to choose the best epoch on; try a fraction such as 0.1, or {test}"

    def test_dataloader(self) -> DataLoader[Batch]:
        """The test samples, in their order."""
        return self._evaluation(self.images.test, torch.arange(len(self.images.test)))

    def probe(self, n: int) -> Batch:
        """The first n training samples, un-augmented, dealt out class by class: the same in every run and epoch."""
        part = self.images.train
        return self._read(part, self._train[balanced_order(part.labels[self._train])[:n]])

    def judged(self, n: int) -> Batch:
        """The first n of the samples that `val_dataloader` serves."""
        if self.use_all:
            return self._read(self.images.test, torch.arange(min(n, len(self.images.test))))
        return self._read(self.images.train, self._held_out[:n])

    def describe(self) -> dict[str, Any]:
        """The `dataset` object of results.json."""
        frames, augmentation = self.time_steps is not None, self.augmentation
        return {
            "name": self.images.name,
            "provenance": self.images.provenance,
            "shape": list(self.shape),
            "classes": list(self.classes),
            **self.sizes,
            "hash": self.hash,
            "split_hash": self.split_hash,
            "split": getattr(self.images, "split", None),
            "options": {
                "mean": None if frames else self.mean.tolist(),
                "std": None if frames else self.std.tolist(),
                **(self._frame_options() if frames else {"crop_padding": augmentation.padding, "mirror": self.mirror}),
            },
        }

    def _frame_options(self) -> dict[str, Any]:
        manifest = getattr(self.images, "manifest", None)
        options = asdict(self.config.events)
        acting = {option: options[option] for option in options if option in find(self.config.name).acting()}
        trial = {option for option in ("start", "duration") if acting.get(option) is None}  # the whole recording
        chosen = {option: value for option, value in acting.items() if option not in trial}
        return {"manifest": manifest, "mirror": self.mirror, **chosen}

    def _read(self, split: Split, indices: Tensor) -> Batch:
        return as_input(split.read(indices), self.mean, self.std), split.labels[indices]

    def _evaluation(self, split: Split, indices: Tensor) -> DataLoader[Batch]:
        dataset = BatchDataset(split, self.process.of_all(indices), self.mean, self.std)
        micro_batch = self.process.micro_batch(self.config.batch_size)
        return self._loader(dataset, 2 * micro_batch)  # no backward pass: room for twice as many

    def _loader(self, dataset: BatchDataset, batch_size: int, slow: bool = False, **options: Any) -> DataLoader[Batch]:
        workers = self.config.num_workers
        if workers is None:  # a batch from memory takes milliseconds: a worker would only compete for the processors
            spare = max(processors() // self.process.devices - 1, 1)
            workers = spare if slow or isinstance(dataset.split, RandomViews) else 0
        return Loader(
            dataset,
            batch_size,
            num_workers=workers,
            persistent_workers=workers > 0,
            collate_fn=whole,
            generator=torch.Generator(),  # else every pass over the loader draws from the global one
            pin_memory=torch.cuda.is_available(),
            **options,
        )
