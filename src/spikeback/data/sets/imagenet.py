"""ImageNet from the files that are published, decoded batch by batch."""

import hashlib
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torchvision.transforms.v2 import RandomResizedCrop

from spikeback.data.augment import drawing_from_torch
from spikeback.data.decode import IMAGES, decode_one
from spikeback.data.images import Statistics, middle
from spikeback.data.sets.layouts import Layout, Tree
from spikeback.data.sets.source import LoadOptions, Published, Source
from spikeback.data.tree import entries, left_out, visible
from spikeback.errors import UsageError

STATISTICS: Statistics = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))  # as the authors' public code has them
SIZE = 224
COUNTS = (1000, 1_281_167, 50_000)  # classes, training and validation images of ILSVRC 2012
FILES = "train/<wnid>/*.JPEG and val/<wnid>/*.JPEG, as in ILSVRC 2012"
WNID = r"n\d{8}"


class _Layout(Layout):
    def tree(self, root: Path) -> Tree:
        """Nothing where test images lie in folders by class, as those of `folder` do and ImageNet's never."""
        tree, test = super().tree(root), root / "test"
        sorted_tests = test.is_dir() and any(path.is_dir() for path in entries(test))
        return tree if "val" in tree or not sorted_tests else {}

    def notes(self, tree: Tree, taken: bool) -> list[str]:
        classes = {each for found in tree.values() for each in found}
        counts = len(classes), *(sum(map(len, tree.get(half, {}).values())) for half in ("train", "val"))
        return [] if counts == COUNTS else [f"a part of ImageNet: {counts[0]} of {COUNTS[0]} classes"]

    def refuse(self, root: Path, shapes: Mapping[Path, tuple[int, ...]]) -> None:
        load_imagenet(root)


class ImageNet(Source):
    """ILSVRC 2012, or a part of it, see `load_imagenet`."""

    name = "imagenet"
    title = "ImageNet"
    needs = f"the folder that holds {FILES}"
    size = SIZE
    statistics = STATISTICS
    published = Published(COUNTS[1], COUNTS[0], 3, SIZE)
    layout = _Layout(("train", "val"), WNID, IMAGES.suffixes, kind=IMAGES)

    def open(self, root: Path, options: LoadOptions) -> "ImageFileSet":
        return load_imagenet(root, options.size)

    def view(self, path: Path, shape: tuple[int, ...]) -> Tensor:
        channels, height, _ = shape
        return middle(decode_one(path, channels=channels), height)


@dataclass(frozen=True, eq=False)
class ImageFiles:
    """One split of RGB images that are decoded each time they are read; `names`, bytes (N,), are paths below `root`.

    `read` sees their `middle`.
    """

    root: Path
    names: np.ndarray  # one array instead of a million objects, so that worker processes share it
    labels: Tensor
    size: int = SIZE

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def shape(self) -> tuple[int, ...]:
        """(3, size, size)."""
        return 3, self.size, self.size

    def path(self, index: int) -> Path:
        """The file of an image."""
        return self.root / os.fsdecode(self.names[index])

    def read(self, indices: Tensor) -> Tensor:
        """The middle of the images that `indices` names. Raises UsageError naming a file that is broken."""
        images = (decode_one(self.path(index), channels=3) for index in indices.tolist())
        return torch.stack([middle(image, self.size) for image in images])

    def read_random(self, indices: Tensor, seeds: Sequence[int]) -> Tensor:
        """The same, cropped as by torchvision's RandomResizedCrop (8 to 100 % of the area, aspect 3/4 to 4/3)."""
        crop, images = RandomResizedCrop(self.size), []
        with drawing_from_torch() as reseed:
            for index, seed in zip(indices.tolist(), seeds, strict=True):
                image = decode_one(self.path(index), channels=3)
                reseed(seed)
                images.append(crop(image))
        return torch.stack(images)


@dataclass(frozen=True, eq=False)
class ImageFileSet:
    """A dataset that stays on disk; the files' names, sizes and labels stand for their content in its hash."""

    name: str
    provenance: str
    classes: tuple[str, ...]
    train: ImageFiles
    test: ImageFiles
    statistics: Statistics = STATISTICS
    notes: tuple[str, ...] = ()

    def hash(self) -> str:
        """sha256 (hex) over class names, shape, and name, length in bytes and label of every file of both splits."""
        digest = hashlib.sha256(repr(self.classes).encode())
        for split in (self.train, self.test):
            digest.update(repr(split.shape).encode())
            for index, label in enumerate(split.labels.tolist()):
                digest.update(b"%b %d %d\n" % (split.names[index], split.path(index).stat().st_size, label))
        return digest.hexdigest()


def load_imagenet(root: Path, size: int | None = None) -> ImageFileSet:
    """ImageNet from root/train/<wnid>/*.JPEG and root/val/<wnid>/*.JPEG; nothing is decoded yet.

    A part of it, the same classes in both folders, is named as such. Raises UsageError naming the folder or file that
    is missing or does not fit.
    """
    for part in (root / "train", root / "val"):
        if not part.is_dir():
            raise UsageError(f"{part} is not a folder; ImageNet needs {FILES}, in data.root")
    left: list[Path] = []
    (wnids, train), (others, test) = (_class_files(root / part, size or SIZE, left) for part in ("train", "val"))
    if odd := sorted(set(wnids) ^ set(others)):
        raise UsageError(f"{root}/train and {root}/val must have the same classes; {odd[0]} is in only one of them")
    if len(wnids) == 1:
        raise UsageError(f"{root}/train holds one class, {wnids[0]}; a network needs at least two to tell apart")
    counts = (len(wnids), len(train), len(test))
    whole = counts == COUNTS
    provenance = "ILSVRC 2012, training and validation images" + (
        "" if whole else f", {counts[0]} of its 1000 classes, {counts[1]} + {counts[2]} images, not comparable with it"
    )
    if size not in (None, SIZE):
        provenance += f"; resized to {size} x {size}"
    name, notes = "ImageNet" if whole else "ImageNet, a part", tuple(left_out(left, IMAGES))
    return ImageFileSet(name, provenance, tuple(wnids), train, test, notes=notes)


def _class_files(part: Path, size: int, left: list[Path]) -> tuple[list[str], ImageFiles]:
    """The wnids and the images of all of them, both sorted; `left` gets the files that are no images."""
    wnids = [name for name in _visible(part) if IMAGES.fits(Path(name)) or (part / name).is_dir()]
    if not wnids:
        raise UsageError(f"{part} is empty; ImageNet needs {FILES}")
    names: list[bytes] = []
    counts = []
    for wnid in wnids:
        if not re.fullmatch(WNID, wnid) or not (part / wnid).is_dir():
            hint = "; sort its images into folders by class" if IMAGES.fits(Path(wnid)) else ""
            raise UsageError(f"{part / wnid} does not belong here; ImageNet needs {FILES}{hint}")
        held = _visible(part / wnid)
        files = [file for file in held if file.lower().endswith(IMAGES.suffixes)]
        left += [part / wnid / file for file in held if not file.lower().endswith(IMAGES.suffixes)]
        if not files:
            raise UsageError(f"{part / wnid} is a class without images; add some, or move the folder elsewhere")
        names += [os.fsencode(f"{wnid}/{file}") for file in files]
        counts.append(len(files))
    labels = torch.arange(len(wnids)).repeat_interleave(torch.tensor(counts))
    return wnids, ImageFiles(part, np.array(names), labels, size)


def _visible(folder: Path) -> list[str]:
    try:
        return sorted(name for name in os.listdir(folder) if visible(name))  # noqa: PTH208 - a million names
    except OSError as error:
        raise UsageError(f"{folder} cannot be read: {error.strerror or error}") from None
