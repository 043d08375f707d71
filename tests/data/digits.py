"""A dataset from outside the package, as docs/extend.md shows it: my own digits, in one file of arrays."""

from pathlib import Path

import numpy as np
import torch

from spikeback.data import DataSet, Images, ImageSet, LoadOptions, Source, register
from spikeback.errors import UsageError


class Digits(Source):
    """uint8 images (N, C, H, W) and labels (N,) of two halves."""

    name = "digits"
    needs = "the folder that holds digits.npz"
    classes = ("0", "1", "2")
    statistics = ((0.5,), (0.25,))  # without it: those of the training images
    flip = False  # a mirrored 2 is no 2

    def open(self, root: Path, options: LoadOptions) -> DataSet:
        path = root / "digits.npz"
        if not path.is_file():
            raise UsageError(f"{path} is missing; data.root must be {self.needs}")
        with np.load(path) as arrays:
            train, test = (
                Images(torch.from_numpy(arrays[f"{half}_images"]), torch.from_numpy(arrays[f"{half}_labels"]).long())
                for half in ("train", "test")
            )
        return ImageSet("My digits", f"scanned by me, {path.name}", self.classes, train, test)


register(Digits())
