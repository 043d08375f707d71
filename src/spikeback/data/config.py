"""What can be asked of the data: the options behind `--data`."""

from dataclasses import dataclass, field

from spikeback.data.events.config import EventConfig, at_least
from spikeback.data.sets.source import filmed, find
from spikeback.data.split import HELD_OUT
from spikeback.errors import UsageError

LARGEST = 4096  # pixels a side: beyond, one image takes 50 MB and a batch all memory
EIGHTH = 8  # of an image's shorter side, rounded down, is what it is shifted by: 4 pixels of CIFAR's 32


@dataclass
class DataConfig:
    """Which samples to train on, and how they are batched.

    Args:
        name: The dataset: embedded (the Fashion-MNIST subset in the package), fashion-mnist (the whole set where
            installed, else the subset), folder (a tree of images), cifar10, cifar100, imagenet, cifar10-dvs, nmnist,
            dvs128-gesture, recordings (a tree of them), simulated-dvs (images filmed by a simulated event camera),
            tonic:<Name>, or one of your own that is registered.
        root: The folder with the dataset's files; for folder and recordings: train/<class>/ and test/<class>/, or
            <class>/ alone; of val/<class>/ see docs/data.md.
        size: Scale every image or frame to size x size pixels; needed where images differ in size. Empty: 224 for
            imagenet, 48 for cifar10-dvs and simulated-dvs, their own for the others.
        batch_size: Samples of an optimiser step, of all processes and accumulated parts together; the last, incomplete
            batch of an epoch is left out.
        held_out: Fraction of every class's training samples that is set aside to choose the best epoch on; of a folder
            with train/, val/ and test/ that is val/, whatever the fraction.
        split_seed: Seed of that choice, the same for every trial.
        crop_padding: Augmentation: shift images by up to so many pixels in each direction; imagenet: crop at random
            to any size; 0 switches it off. Empty: an eighth of the shorter side, 4 pixels of 32.
        flip: Augmentation: mirror every other sample at random. Empty: where a mirrored sample is known to keep its
            label, that is not in folder and recordings, which nobody knows, nor in nmnist, dvs128-gesture and tonic's
            sets.
        auto_augment: Augmentation: one of the 25 CIFAR-10 policies of AutoAugment for every image.
        cutout: Augmentation: blacken a square of so many pixels a side somewhere in every image; 0 switches it off.
        num_workers: Processes that prepare batches; the batches are the same for any number. Empty: none where samples
            need little work, else all processors but one, shared by the processes that train on this machine.
        limit: Train on the first so many samples only, classes balanced; all if there are fewer.
        download: Fetch cifar10, cifar100 or fashion-mnist into root if it is not there.
        unchecked: Read the files of cifar10, cifar100 and fashion-mnist whatever their checksum.
        split: How cifar10-dvs is divided into training and test recordings: numeric-first-900 (where empty),
            lexicographic-first-900, tebn-first-100-test or random-<seed>.
        cache: Folder for the frames made from recordings; empty is a folder within root.
        events: How recordings become frames.
    """

    name: str = "embedded"
    root: str | None = None
    size: int | None = None
    batch_size: int = 128
    held_out: float = HELD_OUT
    split_seed: int = 0
    crop_padding: int | None = None
    flip: bool | None = None
    auto_augment: bool = False
    cutout: int = 0
    num_workers: int | None = None
    limit: int | None = None
    download: bool = False
    unchecked: bool = False
    split: str | None = None
    cache: str | None = None
    events: EventConfig = field(default_factory=EventConfig)

    def __post_init__(self) -> None:
        if isinstance(self.events, dict):  # from a file
            self.events = EventConfig(**self.events)
        filmed(self.events.source)
        source = find(self.name)
        self.events = source.settled(self.events)
        least = {
            "size": 1,
            "batch_size": 1,
            "split_seed": 0,
            "crop_padding": 0,
            "cutout": 0,
            "num_workers": 0,
            "limit": 1,
        }
        at_least("data", self, least)
        if self.size is not None and self.size > LARGEST:
            raise UsageError(f"data.size must be at most {LARGEST}, not {self.size}")
        if source.frames:
            self.check_for_frames()
        if not 0 <= self.held_out < 1:
            raise UsageError(f"data.held_out must be a fraction, 0 <= held_out < 1, not {self.held_out}")

    def check_for_frames(self) -> None:
        """Raises UsageError for an option given that frames of events take no notice of."""
        for option in ("auto_augment", "cutout"):
            if value := getattr(self, option):
                raise UsageError(f"data.{option}={value} has no use with frames of events; it is for images")

    def check_for_side(self, frames: bool, side: int) -> None:
        """Raises UsageError for an augmentation that reaches beyond samples of `side` pixels."""
        if frames and self.events.roll >= side:
            raise UsageError(
                f"data.events.roll={self.events.roll} is too much for frames of {side} pixels a side; "
                f"give at most {side - 1}"
            )
        for option in () if frames else ("crop_padding", "cutout"):
            if (value := getattr(self, option) or 0) > side:
                raise UsageError(
                    f"data.{option}={value} is too much for images of {side} pixels a side; give at most {side}"
                )
