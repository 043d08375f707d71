"""The one path from recordings on disk to sets of event frames."""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from spikeback.data.events.aedat2 import Axes
from spikeback.data.events.cache import Blocks, cache_folder, cached, stamps
from spikeback.data.events.clock import Policy
from spikeback.data.events.dtype import Sensor, checked_size
from spikeback.data.events.frame_set import Frames, FrameSet
from spikeback.data.events.frames import By, Mode, Resize, largest_count, to_frames, warning_of_cuts
from spikeback.data.events.parallel import parallel
from spikeback.data.events.read import read_events
from spikeback.data.tree import entries
from spikeback.errors import UsageError
from spikeback.files import as_text

Item = TypeVar("Item")


@dataclass(frozen=True)
class FrameOptions:
    """How recordings become frames, see `read_events` and `to_frames`, and where and by how many processes.

    `start` and `duration` choose a part of every recording, in microseconds from its first event on; None: from there
    on, to the last. `size` None keeps the sensor's pixels; `cache` None is <root>/.spikeback where that can be written,
    else the user's cache folder; `workers` None takes one process for each core.
    """

    time_steps: int = 10
    size: int | Sensor | None = None
    by: By = "count"
    mode: Mode = "count"
    resize: Resize = "nearest"
    axes: Axes = "jaer"
    policy: Policy = "raise"
    start: int | None = None
    duration: int | None = None
    cache: Path | None = None
    workers: int | None = None

    def __post_init__(self) -> None:
        if self.size is not None and not isinstance(self.size, int):
            object.__setattr__(self, "size", checked_size(self.size, "size"))  # an array compares element by element

    def shape(self, sensor: Sensor) -> tuple[int, int, int, int]:
        """(T, 2, H, W) of a sample from a camera of (height, width)."""
        height, width = sensor if self.size is None else (self.size,) * 2 if isinstance(self.size, int) else self.size
        return self.time_steps, 2, height, width

    def dtype(self, sensor: Sensor) -> str:
        """uint8 for whole counts, float16 where resizing makes fractions of them."""
        whole = self.resize == "nearest" or self.shape(sensor)[2:] == tuple(sensor)
        return "uint8" if whole else "float16"

    def sample(self, events: np.ndarray, sensor: Sensor) -> np.ndarray:
        """The frames of one recording as they are kept: (T, 2, H, W), counts above the type's largest cut off."""
        start = self.start if self.start is None or not len(events) else int(events["t"][0]) + self.start
        frames = to_frames(
            events, self.time_steps, sensor, self.size, self.by, self.mode, self.resize, start, self.duration
        ).numpy()
        kind = self.dtype(sensor)
        return frames.clip(max=largest_count(kind)).astype(kind)


def decode(
    name: str,
    root: Path | None,
    items: Sequence[Item],
    work: Callable[[Item], np.ndarray],
    labels: Tensor,
    sensor: Sensor,
    options: FrameOptions,
    key: Mapping[str, Any],
    counts: Sequence[int] | None = None,
    rows: Tensor | None = None,
) -> Frames:
    """The samples of all `items`, with `labels`, int64 (N,), from the cache beside `root`, made if need be.

    `work(item)` returns the frames of one item, (n, T, 2, H, W), n = 1 or as `counts` says; `key` is what decides them
    apart from `options`. Of the samples only `rows` are made; None: all. Warns once of counts that may have been cut
    off, with their number.
    """
    starts = np.cumsum([0, *(counts or [1] * len(items))])

    def samples(missing: np.ndarray) -> Blocks:
        chosen = np.unique(np.searchsorted(starts, missing, "right") - 1).tolist()
        made = parallel(work, [items[i] for i in chosen], f"Decoding {name}", options.workers)
        for i, block in enumerate(warning_of_cuts(name, made)):
            yield int(starts[chosen[i]]), block

    decoding = {name: value for name, value in asdict(options).items() if name not in ("cache", "workers")}
    folder, shape = cache_folder(root, options.cache), (len(labels), *options.shape(sensor))
    wanted = None if rows is None else rows.numpy()
    key = {**key, **decoding, "sensor": sensor}
    entry = cached(folder, name, key, shape, samples, options.dtype(sensor), wanted)
    return Frames(entry.frames, labels, None, entry.sums)


def decode_files(
    name: str, root: Path, files: Sequence[Path], labels: Tensor, sensor: Sensor, options: FrameOptions
) -> Frames:
    """The samples of `files` below `root`, one recording each, with `labels`, from the cache, made if need be."""
    work = partial(read_sample, options=options, sensor=sensor)
    return decode(name, root, files, work, labels, sensor, options, {"files": stamps(root, files)})


def read_sample(path: Path, options: FrameOptions, sensor: Sensor) -> np.ndarray:
    """The frames of one recording, (1, T, 2, H, W). Raises UsageError naming a file that cannot be read."""
    events = read_events(path, options.axes, sensor, options.policy)
    with naming(path):
        return options.sample(events, sensor)[None]


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Put the file's name before what is wrong with its events."""
    try:
        yield
    except UsageError as error:
        raise UsageError(f"{path}: {error}") from None


def manifest_hash(root: Path, train: Iterable[Path], test: Iterable[Path]) -> str:
    """sha256 (hex) of two lines, each a split: its name, then its files below `root`, all parted by tabs."""
    lines = [
        "\t".join([half, *(path.relative_to(root).as_posix() for path in files)])
        for half, files in (("train", train), ("test", test))
    ]
    return hashlib.sha256(as_text("\n".join(lines)).encode()).hexdigest()


def class_files(folder: Path, classes: Sequence[str], suffix: str) -> tuple[list[Path], Tensor]:
    """folder/<class>/*<suffix> of all `classes`: paths, class by class, and labels, int64 (N,).

    Raises UsageError for a class that is missing or empty and for any other file among the recordings.
    """
    paths: list[Path] = []
    counts: list[int] = []
    for name in classes:
        if not (folder / name).is_dir():
            raise UsageError(f"{folder} lacks the class folder {name}; expected {', '.join(classes)}")
        files = entries(folder / name)
        if odd := [path for path in files if path.suffix != suffix]:
            raise UsageError(f"{odd[0]} is no recording; expected only {suffix} files in {folder / name}")
        if not files:
            raise UsageError(f"{folder / name} holds no recordings; expected {suffix} files")
        paths += files
        counts.append(len(files))
    return paths, torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))


def tree_set(
    name: str,
    provenance: str,
    root: Path,
    halves: Sequence[tuple[list[Path], Tensor]],
    classes: Sequence[str],
    sensor: Sensor,
    options: FrameOptions,
    named: Sequence[Sequence[Path]] | None = None,
) -> FrameSet:
    """A set that comes divided: `halves` are the (files, labels) of its training and test recordings below `root`.

    `named`: what these files are called in the published set; None: as here.
    """
    (train, train_labels), (test, test_labels) = halves
    labels = torch.cat([train_labels, test_labels])
    whole = decode_files(name.lower().replace(" ", "-"), root, train + test, labels, sensor, options)
    parts = [whole.part(rows) for rows in torch.arange(len(whole)).split([len(train), len(test)])]
    manifest = manifest_hash(root, *(named or (train, test)))
    return FrameSet(name, provenance, tuple(classes), parts[0], parts[1], "official", sensor, manifest)
