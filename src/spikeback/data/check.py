"""What a folder is: which dataset, how many samples of each class, which files are broken, and what is missing."""

import re
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from spikeback.data.config import DataConfig
from spikeback.data.events import dvs, gesture, read_events, sets, to_frames
from spikeback.data.events.parallel import parallel
from spikeback.data.fashion_mnist import places, read_published
from spikeback.data.folder import SUFFIXES, TEST_FRACTION, decode_one, differ, entries, list_folder
from spikeback.data.load import NEEDS, load
from spikeback.data.sheet import MOST, spread
from spikeback.data.split import hold_out, split_hash
from spikeback.data.static import CIFAR, IMAGENET_COUNTS, check_file, cifar_folder, load_imagenet
from spikeback.errors import UsageError

SAMPLES = 8  # of each class that are shown
GESTURE = "dvs128-gesture"
HELD_OUT = DataConfig().held_out
Tree = dict[str, dict[str, list[Path]]]  # half -> class -> files


@dataclass
class Finding:
    """What was found: `source` is the name for --data.name, `counts` half -> class -> samples, `broken` and `missing` a
    line each, `refused` why `load` would not take it otherwise, `hashes` name -> sha256, `samples` class -> pictures
    (C, H, W) or frames (T, 2, H, W)."""

    source: str
    counts: dict[str, dict[str, int]] = field(default_factory=dict)
    broken: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    refused: str | None = None
    hashes: dict[str, str] = field(default_factory=dict)
    samples: dict[str, list[Tensor]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)  # worth knowing, nothing to mend
    checked: int = 0  # files opened

    @property
    def whole(self) -> bool:
        """Whether nothing is broken or missing, and `load` takes it."""
        return not self.broken and not self.missing and self.refused is None


@dataclass(frozen=True)
class Layout:
    """How a dataset lies in folders: halves, each with a folder a class; `suffixes` of the files in these."""

    halves: tuple[str, ...]
    classes: str  # a regular expression that the folders' names match
    suffixes: tuple[str, ...]
    sensor: tuple[int, int] | None = None  # None: pictures


LAYOUTS = {
    "imagenet": Layout(("train", "val"), r"n\d{8}", SUFFIXES),
    "nmnist": Layout(("Train", "Test"), r"\d", (".bin",), (34, 34)),
    GESTURE: Layout(("train", "test"), r"\d|10", (".npz", ".aedat"), gesture.SENSOR),
    "cifar10-dvs": Layout((".",), "|".join(dvs.CLASSES), (".aedat",), dvs.SENSOR),
    "folder": Layout(("train", "test"), ".*", SUFFIXES),
}


def check(root: Path, most: int | None = None) -> Finding:
    """Say what `root` is, and open every file in it, or `most` of them, evenly spread.

    Raises UsageError if it is not a folder, or like none of the datasets.
    """
    if not root.is_dir():
        raise UsageError(f"{root} is not a folder; name one that holds a dataset")
    for name, (_, source, _) in CIFAR.items():
        folder = cifar_folder(name, root)
        if folder.is_dir():
            entries = [*source.train_list, *source.test_list, (source.meta["filename"], source.meta["md5"])]
            tests = {folder / file: partial(check_file, folder / file, md5) for file, md5 in entries}
            return _check_packed(name, root, tests)
    some = [paths for paths in places(root) if any(path.exists() for path in paths)]
    if some:  # the place that is read is one with all four files, if there is one
        paths = max(some, key=lambda paths: all(path.is_file() for path in paths))
        return _check_packed("fashion-mnist", root, {path: partial(read_published, path) for path in paths})
    for name, layout in LAYOUTS.items():
        tree = (_listed(root) if name == GESTURE else {}) or _tree(root, layout)
        files = (file for half in tree.values() for each in half.values() for file in each)
        if any(file.suffix.lower() in layout.suffixes for file in files):
            return _check_tree(name, root, layout, tree, most)
    raise UsageError(f"{root} is like no dataset; expected one of these: {'; '.join(NEEDS.values())}")


def _check_packed(name: str, root: Path, tests: Mapping[Path, Callable[[], object]]) -> Finding:
    """A set of a few large files: is each there and as published?"""
    finding = Finding(name, checked=sum(path.exists() for path in tests))
    for path, test in tests.items():
        try:
            test()
        except UsageError as error:
            (finding.broken if path.exists() else finding.missing).append(str(error))
    if finding.whole:
        dataset = load(name, root)
        for half, split in (("train", dataset.train), ("test", dataset.test)):
            counts = split.labels.bincount(minlength=len(dataset.classes)).tolist()
            finding.counts[half] = dict(zip(dataset.classes, counts, strict=True))
        labels = dataset.train.labels
        finding.hashes = {"dataset": dataset.hash(), **_held_out(labels)}
        for label, each in spread(list(enumerate(dataset.classes)), MOST):
            finding.samples[each] = [*dataset.train.read((labels == label).nonzero().flatten()[:SAMPLES])]
    return finding


def _held_out(labels: Tensor) -> dict[str, str]:
    return {f"held-out split ({HELD_OUT:.0%}, seed 0)": split_hash(hold_out(labels, HELD_OUT)[1])}


def _tree(root: Path, layout: Layout) -> Tree:
    """What lies in the class folders, hidden files left out."""
    whole = ["."] if layout is LAYOUTS["folder"] else []  # not divided
    halves = [half for half in layout.halves if (root / half).is_dir()] or whole
    return {
        half: {
            folder.name: _entries(folder)
            for folder in entries(root / half)
            if folder.is_dir() and re.fullmatch(layout.classes, folder.name)
        }
        for half in halves
    }


def _entries(folder: Path) -> list[Path]:
    """What a class holds; the folder itself if it cannot be read, so that it counts as a broken file."""
    try:
        return entries(folder)
    except UsageError:
        return [folder]


def _listed(root: Path) -> Tree:
    """The original DVS128 Gesture: its recordings, each of several gestures, as its two tables list them."""
    tables = {half: root / f"trials_to_{half}.txt" for half in gesture.HALVES}
    return {
        half: {"recordings": [root / line for line in gesture._text(table).split()]}
        for half, table in tables.items()
        if table.is_file()
    }


def _check_tree(name: str, root: Path, layout: Layout, tree: Tree, most: int | None) -> Finding:
    """A set of many small files: open them in several processes."""
    finding = Finding(name, {half: {c: len(files) for c, files in classes.items()} for half, classes in tree.items()})
    paths = [path for classes in tree.values() for files in classes.values() for path in files]
    chosen = spread(paths, most or len(paths))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        opened = list(zip(chosen, parallel(partial(_open, layout=layout), chosen, "Reading"), strict=True))
    finding.checked = len(chosen)
    finding.notes = [str(warning.message) for warning in caught]
    finding.broken = [problem for _, problem in opened if isinstance(problem, str)]
    finding.missing, notes = _missing(name, root, layout, tree)
    finding.notes += notes
    shapes = {path: shape for path, shape in opened if not isinstance(shape, str)}
    if finding.whole:
        finding.refused = _refused(name, root, shapes)
    first = next(iter(tree.values()))
    counts = torch.tensor([len(files) for files in first.values()], dtype=torch.int64)
    labels = torch.arange(len(first)).repeat_interleave(counts)
    if name == "folder" and len(tree) == 1:
        finding.notes.append(f"no test pictures: {TEST_FRACTION:.0%} of every class will be drawn as the test split")
        labels = labels[hold_out(labels, TEST_FRACTION)[0]]
    if name == "cifar10-dvs" and not finding.missing:
        for split in dvs.SPLITS[:-1]:
            files = dvs.recordings(root)
            halves = ([files[row] for row in rows.tolist()] for rows in dvs.split_rows(split))
            finding.hashes[f"split {split}"] = sets.manifest_hash(root, *halves)
    elif not finding.missing and "recordings" not in first:
        finding.hashes = _held_out(labels)
    for each, files in spread(list(first.items()), MOST):
        finding.samples[each] = [_read(path, layout) for path in [path for path in files if path in shapes][:SAMPLES]]
    return finding


def _refused(name: str, root: Path, shapes: Mapping[Path, tuple[int, ...]]) -> str | None:
    """What `load` would say of a folder before it reads the files, or of the shapes of its pictures."""
    try:
        if name == "folder":
            list_folder(root)
            start = next(iter(shapes))
            odd = [path for path, shape in shapes.items() if shape[1:] != shapes[start][1:]]
            return differ(start, shapes[start], odd[0], shapes[odd[0]]) if odd else None
        if name == "imagenet":
            load_imagenet(root)
        elif name == "cifar10-dvs":
            dvs.recordings(root)
        original = (root / "trials_to_train.txt").is_file()
        labels = [str(label) for label in range(len(gesture.CLASSES))]
        for half in gesture.HALVES if name == GESTURE else ():
            gesture._trials(root, half) if original else sets.class_files(root / half, labels, ".npz")
    except UsageError as error:
        return str(error)
    return None


def _open(path: Path, layout: Layout) -> tuple[int, ...] | str:
    """The shape of a sample, or why its file cannot be read, in one line."""
    try:
        if path.is_dir():
            entries(path)  # a class that cannot be read says so
        if path.suffix.lower() not in layout.suffixes:
            return f"{path} does not belong here; expected only {', '.join(layout.suffixes)} files"
        return tuple(_read(path, layout).shape)
    except (UsageError, OSError) as error:
        return str(error)


def _read(path: Path, layout: Layout) -> Tensor:
    if layout.sensor is None:
        return decode_one(path)
    return to_frames(read_events(path, sensor=layout.sensor), 10, layout.sensor)[:1]  # in all, ON and OFF mix


def _missing(name: str, root: Path, layout: Layout, tree: Tree) -> tuple[list[str], list[str]]:
    """(missing, notes): halves, classes and files that should be there, a line each."""
    halves = list(tree) if name == "folder" and "." in tree else layout.halves
    missing = [f"{root / half} is not a folder" for half in halves if half not in tree]
    missing += [f"{root / half} holds no class folders" for half, found in tree.items() if not found]
    known = {"cifar10-dvs": dvs.CLASSES, "nmnist": tuple("0123456789")}.get(name, ())
    classes = sorted({*known, *(c for half in tree.values() for c in half)})
    for half, found in tree.items():
        missing += [f"{root / half / each} is not a folder" for each in classes if each not in found]
        missing += [f"{root / half / each} is empty" for each, files in found.items() if not files]
    for half, found in tree.items():
        for each, files in found.items() if name == "cifar10-dvs" else ():
            names = {path.name for path in files}
            absent = [n for i in range(dvs.PER_CLASS) if (n := f"cifar10_{each}_{i}.aedat") not in names]
            if absent and files:
                missing.append(f"{root / half / each} lacks {len(absent)} of {dvs.PER_CLASS} files, first {absent[0]}")
    counts = {half: sum(map(len, found.values())) for half, found in tree.items()}
    for half, whole in sets.NMNIST.items() if name == "nmnist" else ():
        if counts.get(half, whole) < whole:
            missing.append(f"{root / half} lacks {whole - counts[half]:,} of {whole:,} recordings")
    found = (len(classes), counts.get("train", 0), counts.get("val", 0))
    part = name == "imagenet" and found != IMAGENET_COUNTS
    if name == "folder" and all(re.fullmatch(LAYOUTS["imagenet"].classes, each) for each in classes):
        return missing, ["the classes are named as ImageNet's; --data.name imagenet needs them in train/ and in val/"]
    return missing, [f"a part of ImageNet: {found[0]} of {IMAGENET_COUNTS[0]} classes"] if part else []
