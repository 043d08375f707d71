"""How a dataset of many files lies in folders: what lacks, what does not belong there, and how one file is read."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import torch
from torch import Tensor

from spikeback.data.decode import decode_one
from spikeback.data.events import read_events, to_frames
from spikeback.data.events.dtype import Sensor
from spikeback.data.split import HELD_OUT, hold_out, split_hash
from spikeback.data.tree import Kind, entries, left_out
from spikeback.errors import UsageError
from spikeback.files import as_text

Tree = dict[str, dict[str, list[Path]]]  # half -> class -> files


@dataclass(frozen=True)
class Layout:
    """How a dataset lies in folders: halves, each with a folder a class, each with files.

    A dataset that differs overrides a method.

    Args:
        halves: The folders of the halves; empty: they have several names, and classes are called anything.
        classes: A regular expression that the class folders' names match.
        suffixes: How the names of the files end, in small letters.
        sensor: (height, width) of the event camera; None: the files are images.
        kind: What the files are called where others may lie among them, which are left out; None: none may.
        known: The classes that must be there; empty: those that any half has.
    """

    halves: tuple[str, ...]
    classes: str
    suffixes: tuple[str, ...]
    sensor: Sensor | None = None
    kind: Kind | None = None
    known: tuple[str, ...] = ()

    @property
    def own(self) -> bool:
        """Whether the classes are the user's own."""
        return not self.halves

    def parts(self, root: Path) -> list[str]:
        """The folders of the halves that are there."""
        return [half for half in self.halves if (root / half).is_dir()]

    def tree(self, root: Path) -> Tree:
        """What lies in the class folders, hidden files left out."""
        return {
            half: {
                as_text(folder.name): _entries(folder)
                for folder in entries(root / half)
                if folder.is_dir() and re.fullmatch(self.classes, folder.name)
            }
            for half in self.parts(root)
        }

    def names(self, half: str, each: str, files: Sequence[Path]) -> Sequence[str]:
        """What the files of the class `each` are called, in order; empty: anything."""
        return ()

    def groups(self, classes: Mapping[str, list[Path]]) -> Mapping[str, list[Path]]:
        """The files of a half that are numbered together, by the folder they lie in: those of each class."""
        return classes

    def notes(self, tree: Tree, taken: bool) -> list[str]:
        """What is worth knowing and nothing to mend, a line each; `taken`: whether `load` takes the folder."""
        return []

    def refuse(self, root: Path, shapes: Mapping[Path, tuple[int, ...]]) -> None:
        """Raises UsageError as `load` would, for a folder or for the shapes of the samples in its files."""

    def hashes(self, root: Path, tree: Tree) -> dict[str, str]:
        """The name of a split -> its sha256: by default of the samples that a training holds out."""
        return held_out_hash(labels_of(tree))

    def read(self, path: Path) -> Tensor:
        """One file for a person to look at: uint8 (C, H, W), or frames (1, 2, H, W)."""
        if self.sensor is None:
            return decode_one(path)
        return to_frames(read_events(path, sensor=self.sensor), 10, self.sensor)[:1]  # in all, ON and OFF mix

    def fits(self, tree: Tree) -> bool:
        """Whether any file in it is one of this layout."""
        files = chain.from_iterable(chain.from_iterable(half.values()) for half in tree.values())
        return any(file.suffix.lower() in self.suffixes for file in files)

    def without_others(self, tree: Tree) -> tuple[Tree, list[str]]:
        """The same without the files that a training leaves out, and what to say of these."""
        kind = self.kind
        if kind is None:
            return tree, []
        other = lambda path: not kind.fits(path) and not path.is_dir()
        left = [path for found in tree.values() for files in found.values() for path in files if other(path)]
        gone = set(left)
        kept = {h: {c: [p for p in files if p not in gone] for c, files in found.items()} for h, found in tree.items()}
        return kept, left_out(left, kind)

    def strangers(self, tree: Tree) -> Iterator[str]:
        """A line for each file whose name is none of the dataset's, or that of another."""
        for half, found in tree.items():
            seen: dict[str, Path] = {}
            for each, files in found.items():
                names = self.names(half, each, files)
                known = set(names)
                for path in files if names else ():
                    if path.suffix in self.suffixes and path.name not in known:
                        yield f"{path} does not belong here; expected only {names[0]} to {names[-1]}"
                    elif (other := seen.setdefault(path.name, path)) is not path:
                        yield f"{path} has the number of {other}"

    def missing(self, root: Path, tree: Tree) -> list[str]:
        """Halves, classes and files that should be there, a line each."""
        there = {half.lower() for half in tree}
        lines = [f"{root / half} is not a folder" for half in self.halves if half.lower() not in there]
        lines += [f"{root / half} holds no class folders" for half, found in tree.items() if not found]
        classes = sorted({*self.known, *(each for found in tree.values() for each in found)})
        for half, found in tree.items():
            lines += [f"{root / half / each} is not a folder" for each in classes if each not in found]
            lines += [f"{root / half / each} is empty" for each, files in found.items() if not files]
        for half, found in tree.items():
            for each, files in self.groups(found).items():
                there, names = {path.name for path in files}, self.names(half, each, files)
                absent = [file for file in names if file not in there]
                if absent and files:
                    place = root / half / each
                    lines.append(f"{place} lacks {len(absent):,} of {len(names):,} files, first {absent[0]}")
        return lines


def labels_of(tree: Tree) -> Tensor:
    """The labels, int64 (N,), of the files of the first half."""
    first = next(iter(tree.values()))
    counts = torch.tensor([len(files) for files in first.values()], dtype=torch.int64)
    return torch.arange(len(first)).repeat_interleave(counts)


def held_out_hash(labels: Tensor) -> dict[str, str]:
    """The name of the held-out split where nothing is said -> its sha256."""
    return {f"held-out split ({HELD_OUT:.0%}, seed 0)": split_hash(hold_out(labels, HELD_OUT)[1])}


def _entries(folder: Path) -> list[Path]:
    """What a class holds; the folder itself if it cannot be read, so that it counts as a broken file."""
    try:
        return entries(folder)
    except UsageError:
        return [folder]
