"""How datasets of many files lie in folders: which of them a folder is, what lacks, what does not belong there."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from spikeback.data.events import decode as sets
from spikeback.data.sets import cifar10_dvs as dvs
from spikeback.data.sets import dvs128_gesture as gesture
from spikeback.data.sets.folder import PICTURES
from spikeback.data.sets.homes import MARKS
from spikeback.data.sets.recordings import RECORDINGS
from spikeback.data.sets.static import IMAGENET_COUNTS
from spikeback.data.tree import WHOLE, Kind, entries, halves, left_out
from spikeback.errors import UsageError
from spikeback.files import as_text

GESTURE = "dvs128-gesture"
Tree = dict[str, dict[str, list[Path]]]  # half -> class -> files


@dataclass(frozen=True)
class Layout:
    """How a dataset lies in folders: halves, each with a folder a class; `suffixes` of the files in these.

    `kind`: what its files are, where others may lie among them, which are left out.
    """

    halves: tuple[str, ...]
    classes: str  # a regular expression that the folders' names match
    suffixes: tuple[str, ...]
    sensor: tuple[int, int] | None = None  # None: pictures
    kind: Kind | None = None


LAYOUTS = {
    "imagenet": Layout(("train", "val"), r"n\d{8}", PICTURES.suffixes, kind=PICTURES),
    "nmnist": Layout(("Train", "Test"), r"\d", (".bin", ".npz"), (34, 34)),
    GESTURE: Layout(("train", "test"), r"\d|10", (".npz", ".aedat"), gesture.SENSOR),
    "cifar10-dvs": Layout((".",), "|".join(dvs.CLASSES), (".aedat", ".npz"), dvs.SENSOR),
    "folder": Layout((), ".*", PICTURES.suffixes, kind=PICTURES),  # its halves have several names
    "recordings": Layout((), ".*", RECORDINGS.suffixes, kind=RECORDINGS),
}
OWN = ("folder", "recordings")  # with classes of any names


def find(root: Path) -> tuple[str, Tree] | None:
    """The first of LAYOUTS that a folder is like, and its files; None if it is like none."""
    for name, layout in LAYOUTS.items():
        tree = (_listed(root) if name == GESTURE else {}) or _tree(root, layout)
        files = chain.from_iterable(chain.from_iterable(half.values()) for half in tree.values())
        divided = name != "imagenet" or "val" in tree or not _tests(root)
        if divided and any(file.suffix.lower() in layout.suffixes for file in files):
            return name, tree
    return None


def _tests(root: Path) -> bool:
    """Whether test pictures lie in folders by class, as those of `folder` do and ImageNet's never."""
    return (root / "test").is_dir() and any(path.is_dir() for path in entries(root / "test"))


def _tree(root: Path, layout: Layout) -> Tree:
    """What lies in the class folders, hidden files left out."""
    if layout in (LAYOUTS[name] for name in OWN):
        parts = [half if half == WHOLE else path.name for half, path in halves(root).items()]
    else:
        arrays = layout is LAYOUTS["nmnist"] and any(root.glob(MARKS["nmnist"][1]))  # SpikingJelly's
        parts = [half for each in layout.halves if (root / (half := each.lower() if arrays else each)).is_dir()]
    return {
        half: {
            as_text(folder.name): _entries(folder)
            for folder in entries(root / half)
            if folder.is_dir() and re.fullmatch(layout.classes, folder.name)
        }
        for half in parts
    }


def without_others(tree: Tree, layout: Layout) -> tuple[Tree, list[str]]:
    """The same without the files that a training leaves out, and what to say of these."""
    kind = layout.kind
    if kind is None:
        return tree, []
    other = lambda path: not kind.fits(path) and not path.is_dir()
    left = [path for found in tree.values() for files in found.values() for path in files if other(path)]
    gone = set(left)
    kept = {h: {c: [p for p in files if p not in gone] for c, files in found.items()} for h, found in tree.items()}
    return kept, left_out(left, kind)


def _entries(folder: Path) -> list[Path]:
    """What a class holds; the folder itself if it cannot be read, so that it counts as a broken file."""
    try:
        return entries(folder)
    except UsageError:
        return [folder]


def _listed(root: Path) -> Tree:
    """The original DVS128 Gesture: its recordings, each of several gestures, as its two tables list them."""
    halves = [half for half in gesture.HALVES if (root / f"trials_to_{half}.txt").is_file()]
    return {half: {"recordings": gesture.listed(root, half)} for half in halves}


def _names(name: str, half: str, each: str, files: Sequence[Path]) -> Sequence[str]:
    """What the files of a class are called, N-MNIST's being numbered throughout a half; empty: anything."""
    arrays = bool(files) and all(path.suffix == ".npz" for path in files)  # SpikingJelly's
    if name == "cifar10-dvs":
        return dvs.names(each, ".npz" if arrays else ".aedat")
    return sets.numbers(half, ".npz" if arrays else ".bin") if name == "nmnist" else ()


def strangers(name: str, tree: Tree) -> Iterator[str]:
    """A line for each recording whose name is none of its dataset's, or that of another."""
    for half, found in tree.items():
        seen: dict[str, Path] = {}
        for each, files in found.items():
            names = _names(name, half, each, files)
            known = set(names)
            for path in files if names else ():
                if path.suffix in LAYOUTS[name].suffixes and path.name not in known:
                    yield f"{path} does not belong here; expected only {names[0]} to {names[-1]}"
                elif (other := seen.setdefault(path.name, path)) is not path:
                    yield f"{path} has the number of {other}"


def missing(name: str, root: Path, tree: Tree) -> list[str]:
    """Halves, classes and files that should be there, a line each."""
    there = {half.lower() for half in tree}
    lines = [f"{root / half} is not a folder" for half in LAYOUTS[name].halves if half.lower() not in there]
    lines += [f"{root / half} holds no class folders" for half, found in tree.items() if not found]
    known = {"cifar10-dvs": dvs.CLASSES, "nmnist": tuple("0123456789")}.get(name, ())
    classes = sorted({*known, *(each for found in tree.values() for each in found)})
    for half, found in tree.items():
        lines += [f"{root / half / each} is not a folder" for each in classes if each not in found]
        lines += [f"{root / half / each} is empty" for each, files in found.items() if not files]
    for half, found in tree.items():
        groups = {".": [*chain(*found.values())]} if name == "nmnist" else found
        for each, files in groups.items():
            there, names = {path.name for path in files}, _names(name, half, each, files)
            absent = [file for file in names if file not in there]
            if absent and files:
                place = root / half / each
                lines.append(f"{place} lacks {len(absent):,} of {len(names):,} files, first {absent[0]}")
    return lines


def notes(name: str, tree: Tree) -> list[str]:
    """What is worth knowing and nothing to mend, a line each."""
    classes = {each for found in tree.values() for each in found}
    counts = len(classes), *(sum(map(len, tree.get(half, {}).values())) for half in ("train", "val"))
    if name == "imagenet" and counts != IMAGENET_COUNTS:
        return [f"a part of ImageNet: {counts[0]} of {IMAGENET_COUNTS[0]} classes"]
    if name == "folder" and all(re.fullmatch(LAYOUTS["imagenet"].classes, each) for each in classes):
        return ["the classes are named as ImageNet's; --data.name imagenet needs them in train/ and in val/"]
    return []
