"""Any event dataset of the library tonic (GPL: an extra, never required), as frames."""

import hashlib
from collections.abc import Sequence
from contextlib import redirect_stdout
from functools import partial
from importlib import import_module
from inspect import signature
from io import StringIO
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import torch
from torch import Tensor

from spikeback.data.events.cache import stamps
from spikeback.data.events.clock import ordered
from spikeback.data.events.columns import NAMES, from_columns
from spikeback.data.events.decode import FrameOptions, decode
from spikeback.data.events.dtype import Sensor
from spikeback.data.events.frame_set import FrameSet
from spikeback.data.sets.source import LoadOptions, Source
from spikeback.data.split import hold_out
from spikeback.errors import UsageError
from spikeback.values import instead

TEST_FRACTION = 0.1  # of every class, where tonic's set is not divided
ANY = (0, 0)  # the sensor of sets whose recordings differ in size
PREFIX = "tonic:"


class Tonic(Source):
    """All datasets of tonic, or one of them, see `tonic_set`."""

    frames = True
    events = ("policy",)
    splits = ("official", "random-<seed>")
    flip = False  # nobody knows what they show

    def __init__(self, name: str = f"{PREFIX}<Name>") -> None:
        self.name = name

    def called(self, name: str) -> Source | None:
        return Tonic(name) if name.startswith(PREFIX) and name != PREFIX else None

    def fetch(self, root: Path | None) -> None:
        """tonic downloads while it opens the dataset."""

    def open(self, root: Path, options: LoadOptions) -> FrameSet:
        return tonic_set(self.name.removeprefix(PREFIX), root, options.frames(), options.download, options.split)


def tonic_set(
    name: str, root: Path, options: FrameOptions | None = None, download: bool = False, split: str | None = None
) -> FrameSet:
    """The set `name` of tonic.datasets, its files in root/<name>/; `options` None: 10 frames of the sensor's size.

    A set that tonic divides keeps its halves train and test, split "official" or None; a third one, for validation, is
    left out. Of another, "random-<seed>" (None: random-0) draws a tenth of every class as the test split. A recording
    without y or p lies in row 0 or is all ON.
    Raises UsageError where tonic is not installed, has no such set or not its files (unless `download`), and for a set
    that is not one label a recording.
    """
    options = options or FrameOptions()
    kind = _kind(name)
    halves = _halves(kind)
    divided = len(halves) > 1
    seed = _seed(name, divided, split)
    opened = [_open(kind, root, download, **half) for half in halves]
    sensor = _sensor(name, opened[0], options)
    items = [(half, row) for half, dataset in enumerate(opened) for row in _order(dataset)]
    labels, classes = _labels(name, opened[0], [_target(opened[half], row) for half, row in items])
    work = partial(_sample, opened=opened, sensor=sensor, options=options)
    key = {
        "tonic": _version(),
        "files": _files(root, opened),
        "labels": hashlib.sha256(labels.numpy().data).hexdigest(),
    }
    whole = decode(f"tonic-{name.lower()}", root, items, work, labels, sensor, options, key)
    if divided:
        train, test = torch.arange(len(items)).split([len(half) for half in opened])
    else:
        train, test = hold_out(labels, TEST_FRACTION, seed)
    parts = [whole.part(rows) for rows in (train, test)]
    chosen = "official" if divided else f"random-{seed}"
    provenance = f"{name} as tonic {_version()} reads it, split {chosen}"
    return FrameSet(name, provenance, classes, parts[0], parts[1], chosen, None if sensor == ANY else sensor)


def _kind(name: str) -> Any:
    try:
        datasets = import_module("tonic.datasets")
    except ImportError as error:  # of tonic itself, or of something that it needs
        raise UsageError(f"data.name=tonic:{name} needs tonic ({error}): pip install 'spikeback[tonic]'") from None
    if name not in datasets.__all__:
        known = sorted(datasets.__all__)
        raise UsageError(f"tonic has no dataset '{name}'{instead(name, known)}")
    return getattr(datasets, name)


def _halves(kind: Any) -> list[dict[str, Any]]:
    """The arguments that ask for the training and for the test recordings; one without any if all come together."""
    parameters = signature(kind).parameters
    if "train" in parameters:
        return [{"train": True}, {"train": False}]
    if "split" in parameters and parameters["split"].default == "train":
        return [{"split": "train"}, {"split": "test"}]
    return [{}]


def _seed(name: str, divided: bool, split: str | None) -> int:
    if split is None or (divided and split == "official"):
        return 0
    word, _, seed = split.rpartition("-")
    if divided or word != "random" or not (seed.isascii() and seed.isdigit()):
        raise UsageError(
            f"data.split='{split}' is no split of tonic:{name}; it has {'official' if divided else 'random-<seed>'}"
        )
    return int(seed)


def _open(kind: Any, root: Path, download: bool, **half: bool) -> Any:
    """The dataset, which fetches what it misses as soon as it is made: only where that was asked for."""

    def refuse(self: Any) -> NoReturn:
        raise UsageError(
            f"{self.location_on_system} lacks files of tonic's {kind.__name__}; data.download=True fetches them"
        )

    asked = (
        kind if download else type(kind.__name__, (kind,), {"download": refuse})
    )  # tonic's folder is the type's name
    said = StringIO()
    try:
        with redirect_stdout(said):
            dataset = asked(save_to=str(root), **half)
    except UsageError:
        raise
    except (Exception, SystemExit) as error:  # whatever its reader meets first; some print why and exit
        reason = (isinstance(error, SystemExit) and said.getvalue()) or str(error)
        raise UsageError(f"tonic:{kind.__name__} cannot be opened in {root}: {' '.join(reason.split())}") from None
    dataset.__class__ = kind  # so that a worker process can be handed it
    return dataset


def _files(root: Path, opened: Sequence[Any]) -> list[tuple[str, int, int]]:
    """Name, size and time of all that lies where the halves look: they need not say which of it they read."""
    places = {Path(dataset.location_on_system) for dataset in opened}
    return stamps(root, sorted(path for place in places for path in place.rglob("*") if path.is_file()))


def _sensor(name: str, dataset: Any, options: FrameOptions) -> Sensor:
    """(height, width), from tonic's (width, height, polarities)."""
    if (size := getattr(dataset, "sensor_size", None)) is not None:
        width, height, *_ = size
        return height, width
    if options.size is None:
        raise UsageError(f"the recordings of tonic:{name} differ in size; data.size=48 would bring all to 48 x 48")
    return ANY


def _order(dataset: Any) -> list[int]:
    """Its recordings in the order of their files' names: that of some of tonic's sets depends on the file system."""
    data = getattr(dataset, "data", [])
    names = [str(item) for item in data] if len(data) == len(dataset) else [""] * len(dataset)
    return sorted(range(len(dataset)), key=names.__getitem__)


def _target(dataset: Any, row: int) -> Any:
    known = getattr(dataset, "targets", [])
    return known[row] if len(known) == len(dataset) else dataset[row][1]


def _labels(name: str, dataset: Any, targets: Sequence[Any]) -> tuple[Tensor, tuple[str, ...]]:
    if not all(isinstance(target, str | int | np.integer) for target in targets):
        raise UsageError(f"tonic:{name} has no single label for each recording; it cannot be classified")
    values, labels = np.unique(np.array(targets), return_inverse=True)
    named = list(getattr(dataset, "classes", []))  # a list, or a dict from names to labels
    named = [name.decode() if isinstance(name, bytes) else str(name) for name in named]
    if values.dtype.kind in "iu" and values.min() >= 0 and len(named) > values.max():
        return torch.tensor([int(target) for target in targets]), tuple(named)
    return torch.from_numpy(labels.astype(np.int64)), tuple(map(str, values))


def _sample(item: tuple[int, int], opened: Sequence[Any], sensor: Sensor, options: FrameOptions) -> np.ndarray:
    half, row = item
    try:
        raw = opened[half][row][0]
        missing = {"y": np.zeros(len(raw), int), "p": np.ones(len(raw), int)}
        columns = missing | {field: raw[field] for field in raw.dtype.names if field in NAMES}
        events = ordered(from_columns("it", columns), "its events", options.policy)
        if sensor == ANY:
            sensor = int(events["y"].max(initial=0)) + 1, int(events["x"].max(initial=0)) + 1
        return options.sample(events, sensor)[None]
    except Exception as error:  # every tonic set reads its files with code of its own
        file = opened[half].data[row] if len(getattr(opened[half], "data", [])) > row else f"number {row}"
        raise UsageError(f"{file} cannot be decoded: {error}") from None


def _version() -> str:
    return getattr(import_module("tonic"), "__version__", "")
