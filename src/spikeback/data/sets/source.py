"""What is known of one dataset, and the registry of them all."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torchvision
from torch import Tensor

from spikeback.data.decode import decode_one
from spikeback.data.events.config import EventConfig
from spikeback.data.events.decode import FrameOptions
from spikeback.data.events.frame_set import FrameSet
from spikeback.data.images import DataSet, ImageSet, Statistics, resized
from spikeback.data.sets.homes import Home
from spikeback.data.sets.layouts import Layout
from spikeback.errors import UsageError
from spikeback.values import instead

FRAME_OPTIONS = ("time_steps", "by", "mode", "resize", "start", "duration", "roll")  # they act on all event frames


class Published(NamedTuple):
    """The published size of a dataset: training samples; K; C and side in pixels of what enters the network."""

    train: int
    classes: int
    channels: int
    side: int


@dataclass(frozen=True)
class LoadOptions:
    """What `load` was asked for, apart from the dataset and its folder; each is explained in `DataConfig`."""

    events: EventConfig
    size: int | None = None
    download: bool = False
    unchecked: bool = False
    cache: Path | None = None
    split: str | None = None
    only: Callable[[DataSet], Tensor] | None = None

    def frames(self, size: int | None = None) -> FrameOptions:
        """How recordings become frames; `size` is that of the dataset where none was asked for."""
        e = self.events
        return FrameOptions(
            e.time_steps, self.size or size, e.by, e.mode, e.resize, e.axes, e.policy, e.start, e.duration, self.cache
        )


class Source:
    """One dataset with all its facts. To add a dataset, derive a class, set what differs, and `register` an object.

    Only `name` and `open` must be given.

    Attributes:
        name: What data.name calls it.
        title: What papers call it; empty: as `name`.
        needs: What data.root must name, as the end of a sentence.
        root: Whether files of the user are "needed", "optional" or come with the package ("none").
        frames: Whether its samples are frames of events (T, 2, H, W); else they are images (C, H, W).
        size: Pixels a side of its samples where data.size is empty; None: as they are.
        sensor: Pixels of the event camera, (height, width), or the side of a square one.
        events: The options of data.events that act on it, besides those that act on all frames.
        splits: What data.split chooses from; empty: the dataset has one split.
        fetched: The class of torchvision.datasets that downloads it; empty: nobody does.
        flip: Whether training mirrors samples where data.flip is empty. False: never, since a mirrored sample may be
            of another class. None: the files decide.
        classes: The class names in the order of their labels, where they are known beforehand.
        statistics: The published mean and deviation of each channel on the scale 0..1.
        published: Its published size, from which the cost of a training is estimated.
        layout: How its files lie in folders, for `spikeback data check`.
        home: Where within data.root its files may lie as well.
    """

    name: str
    title: str = ""
    needs: str = ""
    root: Literal["needed", "optional", "none"] = "needed"
    frames: bool = False
    size: int | None = None
    sensor: int | tuple[int, int] | None = None
    events: tuple[str, ...] = ()
    splits: tuple[str, ...] = ()
    fetched: str = ""
    flip: bool | None = True
    classes: tuple[str, ...] = ()
    statistics: Statistics | None = None
    published: Published | None = None
    layout: Layout | None = None
    home: Home | None = None

    def open(self, root: Any, options: LoadOptions) -> DataSet:
        """The dataset whose files lie in the folder `root`, a Path; None where none is given and none is needed.

        Raises UsageError naming the file that is missing or unreadable.
        """
        raise NotImplementedError

    def load(self, root: Path | None, options: LoadOptions) -> DataSet:
        """`open` it, with what is known of it: images in memory get their size and `statistics`."""
        dataset = self.open(root, options)
        if isinstance(dataset, ImageSet):
            dataset = replace(dataset, statistics=dataset.statistics or self.statistics)
            dataset = resized(dataset, options.size or self.size)
        if self.flip is False and isinstance(dataset, ImageSet | FrameSet):
            dataset = replace(dataset, mirror=None)
        return dataset

    def called(self, name: str) -> "Source | None":
        """This dataset if that is its name; a family of datasets returns the member of that name."""
        return self if name == self.name else None

    def origin(self, events: EventConfig) -> "Source":
        """The dataset whose files lie in data.root: itself, unless it is made from another."""
        return self

    def settled(self, events: EventConfig) -> EventConfig:
        """The options of data.events with those filled in that this dataset decides. Raises UsageError."""
        return events

    def acting(self) -> tuple[str, ...]:
        """The options of data.events that have an effect; on frames that no source made only `roll` has one."""
        return (*FRAME_OPTIONS, *self.events) if self.frames else ("roll",)

    def fetch(self, root: Path | None) -> None:
        """Let torchvision download what is not there. Raises UsageError if it cannot."""
        if not self.fetched:
            able = ", ".join(sorted(source.name for source in sources() if source.fetched))
            needs = self.needs or "its files"
            raise UsageError(f"data.download=True fetches {able}; put {self.name} there by hand: {needs}")
        if root is None:
            raise UsageError(f"data.download=True needs data.root, the folder to fetch {self.name} into")
        try:
            getattr(torchvision.datasets, self.fetched)(str(root), download=True)
        except (OSError, RuntimeError) as error:  # no network, no such page, or what came is not the file
            raise UsageError(f"data.download=True: {self.name} could not be fetched into {root}: {error}") from None

    def packed(self, root: Path) -> Mapping[Path, Callable[[], object]] | None:
        """For `spikeback data check`: the few large files of this dataset in `root`, and what raises UsageError if one
        is not as published; empty where none of them is there. None: it is not recognised by such files.
        """
        return None

    def view(self, path: Path, shape: tuple[int, ...]) -> Tensor:
        """An image file as a network tested on samples of `shape` = (C, H, W) of this dataset sees it, uint8."""
        channels, height, width = shape
        return decode_one(path, (height, width), channels)


_SOURCES: dict[str, Source] = {}


def register(source: Source) -> None:
    """Make a dataset available by its name, in Python and as --data NAME. Raises UsageError if the name is taken."""
    name: Any = getattr(source, "name", None)
    if not isinstance(name, str) or not name:
        raise UsageError(f"{type(source).__name__}.name must be the name of the dataset, a text, not {name!r}")
    if name in _SOURCES and _class_of(_SOURCES[name]) != _class_of(source):
        raise UsageError(f"the name '{name}' is taken by {type(_SOURCES[name]).__name__}; choose another")
    _SOURCES[name] = source  # again where a module is loaded anew, as in a notebook


def _class_of(source: Source) -> tuple[str, str]:
    return type(source).__module__, type(source).__qualname__


def sources() -> list[Source]:
    """All datasets, in the order in which they were registered."""
    return [*_SOURCES.values()]


def known(name: str) -> Source | None:
    """The dataset of that name, None if there is none."""
    return next((found for source in sources() if (found := source.called(name))), None)


def find(name: str) -> Source:
    """The dataset of that name. Raises UsageError, with the names that there are."""
    if (found := known(name)) is None:
        raise UsageError(f"data.name='{name}' is unknown{instead(name, _SOURCES)}")
    return found


def filmed(name: str) -> Source:
    """The dataset of images that the simulated sensor films. Raises UsageError if no images are called that."""
    images = [source.name for source in sources() if not source.frames]
    if name not in images:
        raise UsageError(f"data.events.source='{name}' is unknown{instead(name, images)}")
    return find(name)
