"""CIFAR-10, CIFAR-100 and ImageNet from the files that are published, in the folders torchvision uses."""

import hashlib
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torchvision.datasets import CIFAR10, CIFAR100
from torchvision.datasets.utils import check_integrity
from torchvision.transforms.v2 import RandomResizedCrop

from spikeback.data.augment import drawing_from_torch
from spikeback.data.pictures import Pictures, PictureSet, Statistics, middle
from spikeback.data.sets.folder import PICTURES, decode_one
from spikeback.data.sets.pickles import read_pickle
from spikeback.data.tree import left_out, visible
from spikeback.errors import UsageError

# Mean and deviation of each channel as the authors' public code has them.
CIFAR = {
    "cifar10": ("CIFAR-10", CIFAR10, ((0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010))),
    "cifar100": ("CIFAR-100", CIFAR100, ((0.5071, 0.4867, 0.4408), (0.2675, 0.2565, 0.2761))),
}
IMAGENET: Statistics = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
IMAGENET_SIZE = 224
IMAGENET_COUNTS = (1000, 1_281_167, 50_000)  # classes, training and validation pictures of ILSVRC 2012
LAYOUT = "train/<wnid>/*.JPEG and val/<wnid>/*.JPEG, as in ILSVRC 2012"


def load_cifar(name: str, root: Path, unchecked: bool = False) -> PictureSet:
    """CIFAR-10 or -100 from the pickles "for Python", in `root` or the folder within that their archive makes.

    A file is opened only if its md5 is the published one, or with `unchecked`; even then it can bring nothing but
    arrays and text. Raises UsageError naming the file that is missing, altered or not what it should be.
    """
    title, source, statistics = CIFAR[name]
    folder = cifar_folder(name, root)
    lists = [[*source.train_list], [*source.test_list], [(source.meta["filename"], source.meta["md5"])]]
    for file, md5 in (entry for each in lists for entry in each):
        check_file(folder / file, None if unchecked else md5)
    meta = folder / source.meta["filename"]
    classes = read_pickle(meta).get(source.meta["key"])
    if not isinstance(classes, list) or not all(isinstance(each, str) for each in classes):
        raise UsageError(f"{meta} has no list '{source.meta['key']}' of class names; it is not of {title}")
    train, test = (_batches([folder / file for file, _ in each], len(classes)) for each in lists[:2])
    provenance = f"{title} by Krizhevsky, official split"
    provenance += "; read without checking the files' md5 sums" if unchecked else ", md5 sums checked"
    return PictureSet(title, provenance, tuple(classes), train, test, statistics)


def cifar_folder(name: str, root: Path) -> Path:
    """Where the files lie: `root` itself if it is named so, else the folder within."""
    folder = CIFAR[name][1].base_folder
    return root if root.name == folder and not (root / folder).is_dir() else root / folder


def check_file(path: Path, md5: str | None = None) -> None:
    """Raises UsageError, with what to do, unless the file is there and, given its `md5`, as it was published."""
    try:
        if not path.is_file():
            what = "is not a file" if path.exists() else "is missing"
            raise UsageError(
                f"{path} {what}; {path.parent.name}/ must hold its original files, --data.download true fetches them"
            )
        fits = check_integrity(path, md5)
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror or error}") from None
    if not fits:
        raise UsageError(
            f"{path} is not as published, its md5 should be {md5}; fetch it again, or, if you trust it, add "
            "--data.unchecked true"
        )


def _batches(paths: Sequence[Path], classes: int) -> Pictures:
    images, labels = [], []
    for path in paths:
        entry = read_pickle(path)
        data, label = entry.get("data"), entry.get("fine_labels", entry.get("labels"))
        good = isinstance(data, np.ndarray) and data.dtype == np.uint8 and data.shape[1:] == (3072,)
        if data is None or not good or not isinstance(label, list) or len(label) != len(data):
            raise UsageError(f"{path} must hold 'data', N x 3072 bytes, and as many labels: fetch it again")
        if wrong := [each for each in label if not (isinstance(each, int) and 0 <= each < classes)]:
            raise UsageError(f"{path} holds the label {wrong[0]!r}; the classes are 0 to {classes - 1}")
        images.append(torch.from_numpy(data.reshape(-1, 3, 32, 32)))
        labels += label
    return Pictures(torch.cat(images), torch.tensor(labels, dtype=torch.int64))


@dataclass(frozen=True, eq=False)
class PictureFiles:
    """One split of RGB pictures that are decoded each time they are read; `names`, bytes (N,), are paths below `root`.

    `read` sees their `middle`.
    """

    root: Path
    names: np.ndarray  # one array instead of a million objects, so that worker processes share it
    labels: Tensor
    size: int = IMAGENET_SIZE

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def shape(self) -> tuple[int, ...]:
        """(3, size, size)."""
        return 3, self.size, self.size

    def path(self, index: int) -> Path:
        """The file of a picture."""
        return self.root / os.fsdecode(self.names[index])

    def read(self, indices: Tensor) -> Tensor:
        """The middle of the pictures that `indices` names. Raises UsageError naming a file that is broken."""
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
class PictureFileSet:
    """A dataset that stays on disk; the files' names, sizes and labels stand for their content in its hash."""

    name: str
    provenance: str
    classes: tuple[str, ...]
    train: PictureFiles
    test: PictureFiles
    statistics: Statistics = IMAGENET
    notes: tuple[str, ...] = ()

    def hash(self) -> str:
        """sha256 (hex) over class names, shape, and name, length in bytes and label of every file of both splits."""
        digest = hashlib.sha256(repr(self.classes).encode())
        for split in (self.train, self.test):
            digest.update(repr(split.shape).encode())
            for index, label in enumerate(split.labels.tolist()):
                digest.update(b"%b %d %d\n" % (split.names[index], split.path(index).stat().st_size, label))
        return digest.hexdigest()


def load_imagenet(root: Path, size: int | None = None) -> PictureFileSet:
    """ImageNet from root/train/<wnid>/*.JPEG and root/val/<wnid>/*.JPEG; nothing is decoded yet.

    A part of it, the same classes in both folders, is named as such. Raises UsageError naming the folder or file that
    is missing or does not fit.
    """
    for part in (root / "train", root / "val"):
        if not part.is_dir():
            raise UsageError(f"{part} is not a folder; ImageNet needs {LAYOUT}, in --data.root")
    left: list[Path] = []
    (wnids, train), (others, test) = (
        _class_files(root / part, size or IMAGENET_SIZE, left) for part in ("train", "val")
    )
    if odd := sorted(set(wnids) ^ set(others)):
        raise UsageError(f"{root}/train and {root}/val must have the same classes; {odd[0]} is in only one of them")
    if len(wnids) == 1:
        raise UsageError(f"{root}/train holds one class, {wnids[0]}; a network needs at least two to tell apart")
    counts = (len(wnids), len(train), len(test))
    whole = counts == IMAGENET_COUNTS
    provenance = "ILSVRC 2012, training and validation pictures" + (
        ""
        if whole
        else f", {counts[0]} of its 1000 classes, {counts[1]} + {counts[2]} pictures, not comparable with it"
    )
    if size not in (None, IMAGENET_SIZE):
        provenance += f"; resized to {size} x {size}"
    name, notes = "ImageNet" if whole else "ImageNet, a part", tuple(left_out(left, PICTURES))
    return PictureFileSet(name, provenance, tuple(wnids), train, test, notes=notes)


def _class_files(part: Path, size: int, left: list[Path]) -> tuple[list[str], PictureFiles]:
    """The wnids and the pictures of all of them, both sorted; `left` gets the files that are no pictures."""
    wnids = [name for name in _visible(part) if PICTURES.fits(Path(name)) or (part / name).is_dir()]
    if not wnids:
        raise UsageError(f"{part} is empty; ImageNet needs {LAYOUT}")
    names: list[bytes] = []
    counts = []
    for wnid in wnids:
        if not re.fullmatch(r"n\d{8}", wnid) or not (part / wnid).is_dir():
            hint = "; sort its pictures into folders by class" if PICTURES.fits(Path(wnid)) else ""
            raise UsageError(f"{part / wnid} does not belong here; ImageNet needs {LAYOUT}{hint}")
        held = _visible(part / wnid)
        files = [file for file in held if file.lower().endswith(PICTURES.suffixes)]
        left += [part / wnid / file for file in held if not file.lower().endswith(PICTURES.suffixes)]
        if not files:
            raise UsageError(f"{part / wnid} is a class without pictures; add some, or move the folder elsewhere")
        names += [os.fsencode(f"{wnid}/{file}") for file in files]
        counts.append(len(files))
    labels = torch.arange(len(wnids)).repeat_interleave(torch.tensor(counts))
    return wnids, PictureFiles(part, np.array(names), labels, size)


def _visible(folder: Path) -> list[str]:
    try:
        return sorted(name for name in os.listdir(folder) if visible(name))  # noqa: PTH208 - a million names
    except OSError as error:
        raise UsageError(f"{folder} cannot be read: {error.strerror or error}") from None
