"""DVS128 Gesture: whole recordings with tables of who moved how from when to when, or one .npz file a gesture."""

import csv
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from spikeback.data.events.decode import FrameOptions, class_files, decode, manifest_hash, naming, stamps, tree_set
from spikeback.data.events.frame_set import FrameSet
from spikeback.data.events.read import read_events
from spikeback.data.sets.homes import Home
from spikeback.data.sets.layouts import Layout, Tree
from spikeback.data.sets.source import LoadOptions, Source
from spikeback.errors import UsageError

CLASSES = (
    "hand clapping",
    "right hand wave",
    "left hand wave",
    "right arm clockwise",
    "right arm counter clockwise",
    "left arm clockwise",
    "left arm counter clockwise",
    "arm roll",
    "air drums",
    "air guitar",
    "other gestures",
)
SENSOR = (128, 128)
HALVES = ("train", "test")
EXPECTED = "trials_to_train.txt with its .aedat recordings and tables, or train/<0..10>/*.npz and test/<0..10>/*.npz"
HOME = Home(
    "dvs128-gesture",
    ("", "extract/DvsGesture", "DvsGesture", "events_np"),
    ("trials_to_train.txt", "train/10"),
    tonic="DVSGesture",
    packed="ibmGesture*",
)
WHOLE_RECORDINGS = "recordings"  # stands for the classes where a file holds several gestures


class _Layout(Layout):
    def tree(self, root: Path) -> Tree:
        """Of the original: its recordings, each of several gestures, as its two tables list them."""
        halves = [half for half in HALVES if (root / f"trials_to_{half}.txt").is_file()]
        return {half: {WHOLE_RECORDINGS: listed(root, half)} for half in halves} or super().tree(root)

    def refuse(self, root: Path, shapes: Mapping[Path, tuple[int, ...]]) -> None:
        if not original_trials(root):
            gesture_files(root)

    def hashes(self, root: Path, tree: Tree) -> dict[str, str]:
        return {} if WHOLE_RECORDINGS in next(iter(tree.values())) else super().hashes(root, tree)


class DVS128Gesture(Source):
    """DVS128 Gesture, see `dvs128_gesture`."""

    name, title = "dvs128-gesture", "DVS128 Gesture"
    needs = "the folder with the recordings and their labels"
    frames = True
    sensor = SENSOR
    events = ("policy",)
    flip = False  # a wave with the left hand would become one with the right
    classes = CLASSES
    layout = _Layout(HALVES, r"\d|10", (".npz", ".aedat"), SENSOR)
    home = HOME

    def open(self, root: Path, options: LoadOptions) -> FrameSet:
        return dvs128_gesture(root, options.frames())


@dataclass(frozen=True)
class Trial:
    """A recording and its gestures: (label, first microsecond, microsecond after the last) each."""

    path: Path
    gestures: tuple[tuple[int, int, int], ...]


def dvs128_gesture(root: Path, options: FrameOptions | None = None) -> FrameSet:
    """DVS128 Gesture; `options` None: 10 frames of 128 x 128.

    The original: root/trials_to_{train,test}.txt list the recordings, AEDAT 3.1, and <recording>_labels.csv beside each
    the gestures, all of which count (1176 + 288). Or one .npz a gesture, root/{train,test}/<0..10>/*.npz, as
    SpikingJelly's events_np holds them. Either may lie in the folder within root that SpikingJelly made for it. Raises
    UsageError naming the file that is missing or damaged.
    """
    options, root = options or FrameOptions(), HOME.of(root)
    original = original_trials(root)
    name, origin = "DVS128 Gesture", "official split by persons"
    if original:
        return _original(name, f"DVS128 Gesture, original AEDAT 3.1 recordings, {origin}", root, original, options)
    origin = f"DVS128 Gesture, one .npz a gesture, {origin}"
    return tree_set(name, origin, root, gesture_files(root), CLASSES, SENSOR, options)


def original_trials(root: Path) -> list[list[Trial]]:
    """The recordings of each half with their gestures; empty if `root` is not the original.

    Raises UsageError naming the file that is missing or damaged.
    """
    return [_trials(root, half) for half in HALVES] if (root / "trials_to_train.txt").is_file() else []


def gesture_files(root: Path) -> list[tuple[list[Path], Tensor]]:
    """(files, labels) of each half, one file a gesture. Raises UsageError naming what is missing."""
    if not all((root / half).is_dir() for half in HALVES):
        raise UsageError(f"data.root={root} is not DVS128 Gesture; expected {EXPECTED}")
    folders = tuple(map(str, range(len(CLASSES))))
    return [class_files(root / half, folders, ".npz") for half in HALVES]


def _original(name: str, provenance: str, root: Path, halves: list[list[Trial]], options: FrameOptions) -> FrameSet:
    trials = [trial for half in halves for trial in half]
    labels = [torch.tensor([label for trial in half for label, _, _ in trial.gestures]) for half in halves]
    files, counts = [trial.path for trial in trials], [len(trial.gestures) for trial in trials]
    key = {"files": stamps(root, files), "gestures": [trial.gestures for trial in trials]}
    work = partial(_samples, options=options)
    whole = decode("dvs128-gesture", root, trials, work, torch.cat(labels), SENSOR, options, key, counts)
    parts = [whole.part(rows) for rows in torch.arange(len(whole)).split([len(half) for half in labels])]
    manifest = manifest_hash(root, *([trial.path for trial in half] for half in halves))
    return FrameSet(name, provenance, CLASSES, parts[0], parts[1], "official", SENSOR, manifest)


def _samples(trial: Trial, options: FrameOptions) -> np.ndarray:
    """The frames of every gesture of a recording, (n, T, 2, H, W)."""
    events = read_events(trial.path, options.axes, SENSOR, options.policy)
    samples = []
    for _, start, end in trial.gestures:
        part = events[(start <= events["t"]) & (events["t"] < end)]
        if not len(part):
            warnings.warn(f"{trial.path} has no events from {start} to {end} us; its frames are empty", stacklevel=2)
        with naming(trial.path):
            samples.append(options.sample(part, SENSOR))
    return np.stack(samples)


def listed(root: Path, half: str) -> list[Path]:
    """The recordings that root/trials_to_<half>.txt names, in its order. Raises UsageError if it cannot be read."""
    return [root / line.strip() for line in _text(_table(root, half)).splitlines() if line.strip()]


def _trials(root: Path, half: str) -> list[Trial]:
    table, files = _table(root, half), listed(root, half)
    tables = [path.with_name(f"{path.stem}_labels.csv") for path in files]
    if missing := [path.name for pair in zip(files, tables, strict=True) for path in pair if not path.is_file()]:
        raise UsageError(f"{root} lacks {len(missing)} files that {table.name} lists, the first is {missing[0]}")
    if not files:
        raise UsageError(f"{table} lists no recordings; fetch it again")
    return [Trial(path, _gestures(labels)) for path, labels in zip(files, tables, strict=True)]


def _table(root: Path, half: str) -> Path:
    return root / f"trials_to_{half}.txt"


def _gestures(table: Path) -> tuple[tuple[int, int, int], ...]:
    """Rows of the table: class from 1, startTime_usec, endTime_usec."""
    gestures = []
    for number, row in enumerate(csv.reader(_text(table).splitlines()[1:]), start=2):
        try:
            kind, start, end = map(int, row)
        except ValueError:
            kind, start, end = 0, 0, 0
        if not (1 <= kind <= len(CLASSES) and start < end):
            raise UsageError(f"{table} line {number} is {','.join(row)}; expected class (1 to 11),start,end")
        gestures.append((kind - 1, start, end))
    if not gestures:
        raise UsageError(f"{table} names no gestures; fetch it again")
    return tuple(gestures)


def _text(path: Path) -> str:
    try:
        return path.read_text("ascii")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}") from None
