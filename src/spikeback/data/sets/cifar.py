"""CIFAR-10 and CIFAR-100 from the files that are published, in the folders torchvision uses."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torchvision
from torchvision.datasets.utils import check_integrity

from spikeback.data.images import Images, ImageSet
from spikeback.data.sets.pickles import read_pickle
from spikeback.data.sets.source import LoadOptions, Published, Source
from spikeback.errors import UsageError

Files = Sequence[tuple[str, str]]  # names, and the md5 sums that are published


class CIFAR(Source):
    """What both have in common; statistics as the authors' public code has them."""

    @property
    def official(self) -> Any:
        """torchvision's class, which knows the names of the files and their md5 sums."""
        return getattr(torchvision.datasets, self.fetched)

    @property
    def files(self) -> tuple[Files, Files, Files]:
        """The training files, the test files, and the file of the class names."""
        official = self.official
        return official.train_list, official.test_list, [(official.meta["filename"], official.meta["md5"])]

    def folder(self, root: Path) -> Path:
        """Where the files lie: `root` itself if it is named so, else the folder within."""
        folder = self.official.base_folder
        return root if root.name == folder and not (root / folder).is_dir() else root / folder

    def open(self, root: Path, options: LoadOptions) -> ImageSet:
        return load_cifar(self, root, options.unchecked)

    def packed(self, root: Path) -> Mapping[Path, Callable[[], object]]:
        folder = self.folder(root)
        files = [entry for each in self.files for entry in each] if folder.is_dir() else []
        return {folder / file: partial(check_file, folder / file, md5) for file, md5 in files}


class CIFAR10(CIFAR):
    """60,000 images of 32 x 32, ten classes."""

    name, title, fetched = "cifar10", "CIFAR-10", "CIFAR10"
    needs = "the folder that holds cifar-10-batches-py/, or will with data.download=True"
    statistics = ((0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010))
    published = Published(50_000, 10, 3, 32)


class CIFAR100(CIFAR):
    """60,000 images of 32 x 32, a hundred classes."""

    name, title, fetched = "cifar100", "CIFAR-100", "CIFAR100"
    needs = "the folder that holds cifar-100-python/, or will with data.download=True"
    statistics = ((0.5071, 0.4867, 0.4408), (0.2675, 0.2565, 0.2761))
    published = Published(50_000, 100, 3, 32)


def load_cifar(source: CIFAR, root: Path, unchecked: bool = False) -> ImageSet:
    """CIFAR-10 or -100 from the pickles "for Python", in `root` or the folder within that their archive makes.

    A file is opened only if its md5 is the published one, or with `unchecked`; even then it can bring nothing but
    arrays and text. Raises UsageError naming the file that is missing, altered or not what it should be.
    """
    title, folder, official = source.title, source.folder(root), source.official
    lists = source.files
    for file, md5 in (entry for each in lists for entry in each):
        check_file(folder / file, None if unchecked else md5)
    meta = folder / official.meta["filename"]
    classes = read_pickle(meta).get(official.meta["key"])
    if not isinstance(classes, list) or not all(isinstance(each, str) for each in classes):
        raise UsageError(f"{meta} has no list '{official.meta['key']}' of class names; it is not of {title}")
    train, test = (_batches([folder / file for file, _ in each], len(classes)) for each in lists[:2])
    provenance = f"{title} by Krizhevsky, official split"
    provenance += "; read without checking the files' md5 sums" if unchecked else ", md5 sums checked"
    return ImageSet(title, provenance, tuple(classes), train, test)


def check_file(path: Path, md5: str | None = None) -> None:
    """Raises UsageError, with what to do, unless the file is there and, given its `md5`, as it was published."""
    try:
        if not path.is_file():
            what = "is not a file" if path.exists() else "is missing"
            raise UsageError(
                f"{path} {what}; {path.parent.name}/ must hold its original files, data.download=True fetches them"
            )
        fits = check_integrity(path, md5)
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror or error}") from None
    if not fits:
        raise UsageError(
            f"{path} is not as published, its md5 should be {md5}; fetch it again, or, if you trust it, add "
            "data.unchecked=True"
        )


def _batches(paths: Sequence[Path], classes: int) -> Images:
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
    return Images(torch.cat(images), torch.tensor(labels, dtype=torch.int64))
