"""CIFAR10-DVS: ten class folders of a thousand AEDAT 2.0 recordings each, and the splits that are in use.

The set has no official split, and the accuracies of different splits must not be compared: each has a name, and the
names of the files in it are hashed into every result. Source: Li et al. 2017, "CIFAR10-DVS"; the splits are those of
TET, OTTT and DSR (numeric), SEW and SpikingJelly (lexicographic), and TEBN.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from spikeback.data.events.cache import stamps
from spikeback.data.events.decode import FrameOptions, decode, manifest_hash, naming, read_sample
from spikeback.data.events.frame_set import FrameSet
from spikeback.data.events.read import read_events
from spikeback.data.sets.homes import Home
from spikeback.data.sets.layouts import Layout, Tree
from spikeback.data.sets.source import LoadOptions, Published, Source
from spikeback.data.tree import entries
from spikeback.errors import UsageError

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
SENSOR = (128, 128)
SIZE = 48  # pixels the paper resizes to
PER_CLASS = 1000  # recordings, of which nine in ten are for training
SPLITS = ("numeric-first-900", "lexicographic-first-900", "tebn-first-100-test", "random-<seed>")
HOME = Home(
    "cifar10-dvs",
    ("", "extract", "events_np"),
    ("airplane/*.aedat", "airplane/*.npz"),
    tonic="CIFAR10DVS",
    packed="airplane/*.aedat4",
)


class _Layout(Layout):
    def names(self, half: str, each: str, files: Sequence[Path]) -> Sequence[str]:
        return names(each, ".npz" if files and all(path.suffix == ".npz" for path in files) else ".aedat")

    def refuse(self, root: Path, shapes: Mapping[Path, tuple[int, ...]]) -> None:
        recordings(root)

    def hashes(self, root: Path, tree: Tree) -> dict[str, str]:
        """Of every split that no seed decides."""
        files, found = recordings(root), {}
        for split in SPLITS[:-1]:
            halves = ([files[row] for row in rows.tolist()] for rows in split_rows(split))
            found[f"split {split}"] = manifest_hash(root, *halves)
        return found


class CIFAR10DVS(Source):
    """CIFAR10-DVS, see `cifar10_dvs`."""

    name, title = "cifar10-dvs", "CIFAR10-DVS"
    needs = "the folder with <class>/cifar10_<class>_<i>.aedat; scripts/download_cifar10_dvs.py gets them"
    frames = True
    size = SIZE
    sensor = SENSOR
    events = ("axes", "policy")
    splits = SPLITS
    classes = CLASSES
    published = Published(PER_CLASS * len(CLASSES) * 9 // 10, len(CLASSES), 2, SIZE)
    layout = _Layout((".",), "|".join(CLASSES), (".aedat", ".npz"), SENSOR, known=CLASSES)
    home = HOME

    def open(self, root: Path, options: LoadOptions) -> FrameSet:
        return cifar10_dvs(root, options.frames(self.size), options.split or SPLITS[0])


def cifar10_dvs(root: Path, options: FrameOptions | None = None, split: str = SPLITS[0]) -> FrameSet:
    """CIFAR10-DVS from root/<class>/cifar10_<class>_<i>.aedat, i = 0..999; `options` None: 10 frames of 48 x 48.

    The files may lie in root/extract, as SpikingJelly leaves them, or be its .npz in root/events_np: the same frames.
    `split` is one of `SPLITS`. All recordings are decoded at the first call, later calls open the cache.
    Raises UsageError naming the class, the first file or the option that is missing, superfluous or unreadable.
    """
    options, root = options or FrameOptions(size=SIZE), HOME.of(root)
    train, test = split_rows(split)
    paths = recordings(root)
    labels = torch.arange(len(CLASSES)).repeat_interleave(PER_CLASS)
    work, key = partial(_sample, options=options), {"files": stamps(root, paths)}
    whole = decode("cifar10-dvs", root, paths, work, labels, SENSOR, options, key)
    named = [path.with_suffix(".aedat") for path in paths]  # the split is the same whatever the files are
    return FrameSet(
        "CIFAR10-DVS",
        f"CIFAR10-DVS, {_origin(paths)}, split {split}",
        CLASSES,
        whole.part(train),
        whole.part(test),
        split,
        SENSOR,
        manifest_hash(root, *([named[row] for row in rows.tolist()] for rows in (train, test))),
        -2 if options.axes == "jaer" else -1,  # jAER's y runs along the width of the upright image
    )


def _origin(paths: list[Path]) -> str:
    return "original AEDAT 2.0 recordings" if paths[0].suffix == ".aedat" else "SpikingJelly's arrays of the recordings"


def _sample(path: Path, options: FrameOptions) -> np.ndarray:
    """The frames of a recording, (1, T, 2, H, W). The axes of SpikingJelly's arrays are turned if jAER's are asked."""
    if path.suffix == ".aedat":
        return read_sample(path, options, SENSOR)
    events = read_events(path, sensor=SENSOR, policy=options.policy)
    if options.axes == "jaer":
        events["x"], events["y"] = events["y"], 127 - events["x"]
    with naming(path):
        return options.sample(events, SENSOR)[None]


def names(each: str, suffix: str = ".aedat") -> list[str]:
    """The files of a class, in order."""
    return [f"cifar10_{each}_{i}{suffix}" for i in range(PER_CLASS)]


def suffix(root: Path) -> str:
    """How the files' names end: .aedat, or .npz of SpikingJelly's arrays."""
    arrays = any(root.glob(f"{CLASSES[0]}/*.npz")) and not any(root.glob(f"{CLASSES[0]}/*.aedat"))
    return ".npz" if arrays else ".aedat"


def recordings(root: Path) -> list[Path]:
    """All recordings, class by class in alphabetical order, by number within a class.

    Raises UsageError for a class folder that is missing, and for files in one that are missing or do not belong there.
    """
    paths: list[Path] = []
    ending = suffix(root)
    for name in CLASSES:
        folder = root / name
        if not folder.is_dir():
            raise UsageError(f"data.root={root} lacks the class folder {name}; expected {', '.join(CLASSES)}")
        expected = [folder / file for file in names(name, ending)]
        found = set(entries(folder))
        if odd := sorted(found.difference(expected)):
            raise UsageError(
                f"{odd[0]} does not belong to CIFAR10-DVS; expected only {expected[0].name} to {PER_CLASS - 1}"
            )
        if missing := [path.name for path in expected if path not in found]:
            raise UsageError(f"{folder} lacks {len(missing)} of {PER_CLASS} recordings, the first is {missing[0]}")
        paths += expected
    return paths


def split_rows(split: str) -> tuple[Tensor, Tensor]:
    """(train, test): sorted, disjoint rows, int64, of all recordings in the order of `recordings`.

    "numeric-first-900" trains on files 0..899 of every class, "lexicographic-first-900" on the first 900 in the order
    of their names as text, "tebn-first-100-test" on files 100..999, "random-<seed>" on 900 drawn per class.
    Raises UsageError for another name.
    """
    kind, _, seed = split.rpartition("-")
    first = np.zeros((len(CLASSES), PER_CLASS), dtype=bool)  # the 900 of every class
    count = PER_CLASS * 9 // 10
    if split == "numeric-first-900":
        first[:, :count] = True
    elif split == "lexicographic-first-900":
        first[:, sorted(range(PER_CLASS), key=lambda i: f"{i}.aedat")[:count]] = True
    elif split == "tebn-first-100-test":
        first[:, PER_CLASS - count :] = True
    elif kind == "random" and seed.isascii() and seed.isdigit():
        rng = np.random.default_rng(int(seed))
        for row in first:
            row[rng.permutation(PER_CLASS)[:count]] = True
    else:
        raise UsageError(f"data.split='{split}' is unknown; choose from {', '.join(SPLITS)}, e.g. random-0")
    return torch.from_numpy(np.flatnonzero(first)), torch.from_numpy(np.flatnonzero(~first))
