"""Own recordings, a folder a class: the event twin of a folder of images."""

import warnings
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np
from torch import Tensor

from spikeback.data.events.cache import Blocks, cache_folder, cached, stamps
from spikeback.data.events.decode import FrameOptions, decode_files, manifest_hash
from spikeback.data.events.dtype import Sensor, Size, checked_size
from spikeback.data.events.frame_set import FrameSet
from spikeback.data.events.frames import to_frames
from spikeback.data.events.nmnist import NMNIST
from spikeback.data.events.parallel import parallel
from spikeback.data.events.read import SUFFIXES, read_with_sensor
from spikeback.data.sets.folder import OwnLayout, divide, list_folder
from spikeback.data.sets.source import LoadOptions, Source
from spikeback.data.tree import WHOLE, Kind
from spikeback.errors import UsageError

RECORDINGS = Kind("recordings", SUFFIXES)


class _Layout(OwnLayout):
    def refuse(self, root: Path, shapes: Mapping[Path, tuple[int, ...]]) -> None:
        list_folder(root, RECORDINGS)
        sizes = parallel(partial(size_of, options=FrameOptions()), [*shapes], "Comparing")
        common_sensor([*shapes], np.concatenate([*sizes]))

    def read(self, path: Path) -> Tensor:
        events, (height, width), _ = read_own(path, FrameOptions())
        return to_frames(events, 10, (max(height, 1), max(width, 1)))[:1]


class OwnRecordings(Source):
    """A tree of recordings, see `recordings`."""

    name = "recordings"
    needs = f"a folder with train/ and test/ or one folder a class, of recordings of events ({', '.join(SUFFIXES)})"
    frames = True
    events = ("axes", "policy", "sensor")
    flip = False  # nobody knows what they show
    layout = _Layout((), ".*", RECORDINGS.suffixes, kind=RECORDINGS)

    def open(self, root: Path, options: LoadOptions) -> FrameSet:
        sensor = options.events.sensor
        return recordings(root, options.frames(), (sensor, sensor) if isinstance(sensor, int) else sensor)


def recordings(root: Path, options: FrameOptions | None = None, sensor: Size | None = None) -> FrameSet:
    """Recordings of any format that `read_events` knows, from root/train/<class>/* and root/test/<class>/*, or
    root/<class>/*, divided as `load_folder` divides images; `options` None: 10 frames of the sensor's size.

    `sensor` (height, width) None: see `common_sensor`. Raises UsageError naming the folder or the file that does not
    fit or cannot be read.
    """
    options, listing = options or FrameOptions(), list_folder(root, RECORDINGS)
    division = divide(listing)
    sensor = (
        common_sensor(division.paths, _sizes(root, division.paths, options))
        if sensor is None
        else checked_size(sensor, "sensor")
    )
    whole = decode_files("recordings", root, division.paths, division.labels, sensor, options)
    name, halves = root.resolve().name, (division.train, division.test)
    manifest = manifest_hash(root, *([division.paths[row] for row in rows.tolist()] for rows in halves))
    return FrameSet(
        name,
        f"recordings from the folder {name}{division.words}",
        tuple(next(iter(listing.trees.values()))),
        whole.part(division.train),
        whole.part(division.test),
        "random-0" if WHOLE in listing.trees else "folders",
        sensor,
        manifest,
        held_out=division.held_out,
        notes=listing.notes,
    )


def _sizes(root: Path, paths: list[Path], options: FrameOptions) -> np.ndarray:
    """`size_of` each file, (N, 3), cached beside the frames: finding them takes as long as decoding."""

    def found(missing: np.ndarray) -> Blocks:
        work = partial(size_of, options=options)
        yield from zip(missing.tolist(), parallel(work, [paths[row] for row in missing], "Reading"), strict=True)

    key = {"files": stamps(root, paths), "axes": options.axes, "policy": options.policy}
    return cached(cache_folder(root, options.cache), "sensors", key, (len(paths), 3), found, "int16").frames


def common_sensor(paths: Sequence[Path], sizes: np.ndarray) -> Sensor:
    """The one (height, width) that those of the files name that name any; else the least that holds all their events.

    `sizes` (N, 3) are `size_of` each. Raises UsageError if two differ, or there is none.
    """
    named = np.flatnonzero(sizes[:, 2])
    largest = sizes[:, :2].max(0).tolist()
    if len(odd := named[(sizes[named, :2] != sizes[named[:1], :2]).any(1)]):
        said = [f"{paths[row]} is of {sizes[row, 0]} x {sizes[row, 1]}" for row in (named[0], odd[0])]
        raise UsageError(
            f"recordings differ in their sensors: {', '.join(said)} pixels; keep those of one camera, or take all as "
            f"they are, in one corner of a larger sensor: data.events.sensor=[{largest[0]},{largest[1]}]"
        )
    height, width = sizes[named[0], :2].tolist() if len(named) else largest
    if not height or not width:
        raise UsageError(
            f"{paths[0]} and all others hold no event and name no sensor; give data.events.sensor=[128,128]"
        )
    return height, width


def size_of(path: Path, options: FrameOptions) -> np.ndarray:
    """(1, 3): height, width, and whether the file says so; else they are the least that holds its events."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # said when the frames are made
        _, size, said = read_own(path, options)
    return np.array([[*size, said]], np.int16)


def read_own(path: Path, options: FrameOptions) -> tuple[np.ndarray, Sensor, bool]:
    """The events of a file, the (height, width) that holds them, and whether the file says it."""
    bare = path.suffix.lower() == ".bin"  # of N-MNIST, or of a larger camera: the format does not say
    events, sensor = read_with_sensor(path, options.axes, (256, 256) if bare else None, options.policy)
    if sensor and not bare:
        return events, sensor, True
    least = NMNIST if bare and len(events) else (0, 0)
    height, width = (max(int(events[name].max(initial=-1)) + 1, side) for name, side in zip("yx", least, strict=True))
    return events, (height, width), False
