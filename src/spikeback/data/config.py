"""What can be asked of the data: the options behind `--data`."""

from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from spikeback.data.sets.source import find, sources
from spikeback.data.split import HELD_OUT
from spikeback.errors import UsageError
from spikeback.values import check_whole, instead

LARGEST = 4096  # pixels a side: beyond, one picture takes 50 MB and a batch all memory
EIGHTH = 8  # of a picture's shorter side, rounded down, is what it is shifted by: 4 pixels of CIFAR's 32


@dataclass
class EventConfig:
    """How recordings of events become frames; pictures take no notice.

    Args:
        time_steps: T, frames of a recording.
        by: Frames of equal numbers of events, or of equal time.
        mode: A frame counts the events at each pixel, or says whether there was any.
        resize: How frames are scaled to --data.size.
        axes: Which way x and y of an AEDAT 2.0 file point, as in jAER or as in SpikingJelly.
        policy: At a cut off record or an event outside the sensor, and at time that goes back: raise an error, or warn,
            leave it out, and sort by time.
        start: Leave out what comes before so many microseconds after the first event of each recording.
        duration: Use so many microseconds of each recording, from there on; by time, they are divided into the frames.
        roll: Augmentation: shift all frames by up to so many pixels, round the edges; 0 switches it off.
        source: The pictures that simulated-dvs films: one of the sets of pictures.
        preset: The simulated sensor, without or with the noise of a real one.
        sensor: Pixels of the camera, [height, width] or one number for both. Empty: those that the files of recordings
            name, or that hold all their events; 128 of the simulated sensor.
        seed: Of the simulated sensor.
    """

    time_steps: int = 10
    by: Literal["count", "time"] = "count"
    mode: Literal["count", "binary"] = "count"
    resize: Literal["nearest", "bilinear", "area"] = "nearest"
    axes: Literal["jaer", "spikingjelly"] = "jaer"
    policy: Literal["raise", "warn"] = "raise"
    start: int | None = None
    duration: int | None = None
    roll: int = 5
    source: str = "embedded"
    preset: Literal["clean", "noisy"] = "clean"
    sensor: int | tuple[int, int] | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        _at_least("data.events", self, {"time_steps": 1, "roll": 0, "start": 0, "duration": 1, "seed": 0})
        if isinstance(self.sensor, np.ndarray):
            self.sensor = self.sensor.tolist()
        if isinstance(self.sensor, list):  # from a file
            if len(self.sensor) != 2:
                raise UsageError(f"data.events.sensor={self.sensor} must be one number or [height, width]")
            self.sensor = (self.sensor[0], self.sensor[1])
        for side in (self.sensor,) if isinstance(self.sensor, int) else self.sensor or ():
            if side < 1:
                raise UsageError(f"data.events.sensor must be at least 1, not {side}")
        pictures = [source.name for source in sources() if not source.frames]
        if self.source not in pictures:
            raise UsageError(f"data.events.source='{self.source}' is unknown{instead(self.source, pictures)}")


@dataclass
class DataConfig:
    """Which samples to train on, and how they are batched.

    Args:
        name: The dataset: embedded (the Fashion-MNIST subset in the package), fashion-mnist (the whole set where
            installed, else the subset), folder (a tree of pictures), cifar10, cifar100, imagenet, cifar10-dvs, nmnist,
            dvs128-gesture, recordings (a tree of them), simulated-dvs (pictures filmed by a simulated event camera),
            tonic:<Name>, or one of your own that is registered.
        root: The folder with the dataset's files; for folder and recordings: train/<class>/ and test/<class>/, or
            <class>/ alone; of val/<class>/ see docs/data.md.
        size: Scale every picture or frame to size x size pixels; needed where pictures differ in size. Empty: 224 for
            imagenet, 48 for cifar10-dvs and simulated-dvs, their own for the others.
        batch_size: Samples of an optimiser step, of all processes and accumulated parts together; the last, incomplete
            batch of an epoch is left out.
        held_out: Fraction of every class's training samples that is set aside to choose the best epoch on; of a folder
            with train/, val/ and test/ that is val/, whatever the fraction.
        split_seed: Seed of that choice, the same for every trial.
        crop_padding: Augmentation: shift pictures by up to so many pixels in each direction; imagenet: crop at random
            to any size; 0 switches it off. Empty: an eighth of the shorter side, 4 pixels of 32.
        flip: Augmentation: mirror every other sample at random. Empty: where a mirrored sample is known to keep its
            label, that is not in folder and recordings, which nobody knows, nor in nmnist, dvs128-gesture and tonic's
            sets.
        auto_augment: Augmentation: one of the 25 CIFAR-10 policies of AutoAugment for every picture.
        cutout: Augmentation: blacken a square of so many pixels a side somewhere in every picture; 0 switches it off.
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
        _at_least("data", self, least)
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
                raise UsageError(f"data.{option}={value} has no use with frames of events; it is for pictures")

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
                    f"data.{option}={value} is too much for pictures of {side} pixels a side; give at most {side}"
                )


def _at_least(group: str, config: object, least: dict[str, int]) -> None:
    for option, bound in least.items():
        if (value := getattr(config, option)) is not None:
            check_whole(f"--{group}.{option}", value, bound)
