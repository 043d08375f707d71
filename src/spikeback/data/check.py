"""What a folder is: which dataset, how many samples of each class, which files are broken, and what is missing."""

import warnings
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from itertools import chain
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from spikeback.data.config import DataConfig
from spikeback.data.events import decode as sets
from spikeback.data.events import read_events, to_frames
from spikeback.data.events.decode import FrameOptions
from spikeback.data.events.parallel import parallel
from spikeback.data.load import NEEDS, load
from spikeback.data.sets import cifar10_dvs as dvs
from spikeback.data.sets import dvs128_gesture as gesture
from spikeback.data.sets.fashion_mnist import places, read_published
from spikeback.data.sets.folder import PICTURES, TEST_FRACTION, decode_one, differ, list_folder
from spikeback.data.sets.homes import INNER, TONIC, home, inner
from spikeback.data.sets.layouts import (
    GESTURE,
    LAYOUTS,
    OWN,
    Layout,
    Tree,
    find,
    missing,
    notes,
    strangers,
    without_others,
)
from spikeback.data.sets.recordings import RECORDINGS, common_sensor, read_own, size_of
from spikeback.data.sets.static import CIFAR, check_file, cifar_folder, load_imagenet
from spikeback.data.sheet import MOST, spread
from spikeback.data.split import hold_out, split_hash
from spikeback.data.tree import DEPTH, HALVES, WHOLE, entries, folders, tried
from spikeback.errors import UsageError

SAMPLES = 8  # of each class that are shown
HELD_OUT = DataConfig().held_out


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


def check(root: Path, most: int | None = None) -> Finding:
    """Say what `root` is, and open every file in it, or `most` of them, evenly spread.

    Raises UsageError if it is not a folder, or like none of the datasets.
    """
    if not root.is_dir():
        raise UsageError(f"{root} is not a folder; name one that holds a dataset")
    for name, (_, source, _) in CIFAR.items():
        folder = cifar_folder(name, root)
        if folder.is_dir():
            files = [*source.train_list, *source.test_list, (source.meta["filename"], source.meta["md5"])]
            tests = {folder / file: partial(check_file, folder / file, md5) for file, md5 in files}
            return _check_packed(name, root, tests)
    some = [paths for paths in places(root) if any(path.exists() for path in paths)]
    if some:  # the place that is read is one with all four files, if there is one
        paths = max(some, key=lambda paths: all(path.is_file() for path in paths))
        return _check_packed("fashion-mnist", root, {path: partial(read_published, path) for path in paths})
    for place in [*(place for name in INNER if (place := inner(name, root))), root]:
        if found := find(place):
            return _check_tree(*found, place, most)
    for name in TONIC:
        home(name, root)  # says whose the files are
    if within := _within(root):
        raise UsageError(f"{root} holds no dataset itself; did you mean {' or '.join(map(str, within[:3]))}?")
    held = [*chain(*map(_held, [root, *folders(root)]))]
    for kind in (PICTURES, RECORDINGS):
        if any(map(kind.fits, held)):
            list_folder(root, kind)  # says what is wrong
    raise UsageError(f"{root} is like no dataset; expected one of these: {'; '.join(NEEDS.values())}")


def _within(root: Path) -> list[Path]:
    """Folders like a dataset, of the first depth below `root` where there are any."""
    level = [root]
    for _ in range(DEPTH):
        level = [path for folder in level for path in tried(folder, root)]
        packed = lambda folder: any(cifar_folder(name, folder).is_dir() for name in CIFAR)
        if found := [folder for folder in level if packed(folder) or (_held(folder) and find(folder))]:
            return found
    return []


def _held(folder: Path) -> list[Path]:
    """What a folder holds; nothing if it cannot be read."""
    with suppress(UsageError):
        return entries(folder)
    return []


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


def _check_tree(name: str, tree: Tree, root: Path, most: int | None) -> Finding:
    """A set of many small files: open them in several processes."""
    layout = LAYOUTS[name]
    tree, others = without_others(tree, layout)
    finding = Finding(name, {half: {c: len(files) for c, files in classes.items()} for half, classes in tree.items()})
    paths = [path for classes in tree.values() for files in classes.values() for path in files]
    chosen = spread(paths, most or len(paths))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        opened = list(zip(chosen, parallel(partial(_open, layout=layout), chosen, "Reading"), strict=True))
    finding.checked = len(chosen)
    finding.notes = [*others, *(str(warning.message) for warning in caught)]
    finding.broken = [*strangers(name, tree), *(problem for _, problem in opened if isinstance(problem, str))]
    finding.missing = missing(name, root, tree)
    shapes = {path: shape for path, shape in opened if not isinstance(shape, str)}
    if finding.whole:
        finding.refused = _refused(name, root, shapes)
    finding.notes += notes(name, tree)
    if name in OWN and finding.refused is None:
        finding.notes += _use(tree, "pictures" if name == "folder" else name)
    first = next(iter(tree.values()))
    counts = torch.tensor([len(files) for files in first.values()], dtype=torch.int64)
    labels = torch.arange(len(first)).repeat_interleave(counts)
    if name in OWN and WHOLE in tree:
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


def _use(tree: Tree, noun: str) -> list[str]:
    """What a training takes the halves of a folder for, where that is a choice."""
    if WHOLE in tree:
        return [f"no test {noun}: {TEST_FRACTION:.0%} of every class will be drawn as the test split"]
    val = [half for half in tree if half.lower() in HALVES["val"]]
    return [f"{val[0]}/ will be {'held out' if len(tree) > 2 else 'the test split'}"] if val else []


def _refused(name: str, root: Path, shapes: Mapping[Path, tuple[int, ...]]) -> str | None:
    """What `load` would say of a folder before it reads the files, or of the shapes of its pictures."""
    try:
        if name == "folder":
            list_folder(root)
            start = next(iter(shapes))
            odd = [path for path, shape in shapes.items() if shape[1:] != shapes[start][1:]]
            return differ(start, shapes[start], odd[0], shapes[odd[0]]) if odd else None
        if name == "recordings":
            list_folder(root, RECORDINGS)
            sizes = parallel(partial(size_of, options=FrameOptions()), [*shapes], "Comparing")
            common_sensor([*shapes], np.concatenate([*sizes]))
        elif name == "imagenet":
            load_imagenet(root)
        elif name == "cifar10-dvs":
            dvs.recordings(root)
        elif name == "nmnist":
            sets.nmnist_files(root)
        elif name == GESTURE and not gesture.original_trials(root):
            gesture.gesture_files(root)
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
    if layout.kind is PICTURES:
        return decode_one(path)
    if layout.kind is RECORDINGS:
        events, (height, width), _ = read_own(path, FrameOptions())
        return to_frames(events, 10, (max(height, 1), max(width, 1)))[:1]
    assert layout.sensor is not None
    return to_frames(read_events(path, sensor=layout.sensor), 10, layout.sensor)[:1]  # in all, ON and OFF mix
