"""The subset of Fashion-MNIST inside the package."""

from importlib.resources import files
from pathlib import Path

import numpy as np
import torch

from spikeback.data.images import Images, ImageSet
from spikeback.data.sets.source import LoadOptions, Published, Source
from spikeback.errors import UsageError

CLASSES = ("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot")


class Embedded(Source):
    """6,000 + 1,000 images of 28 x 28, ten classes."""

    name = "embedded"
    root = "none"
    classes = CLASSES
    published = Published(6_000, 10, 1, 28)

    def open(self, root: Path | None, options: LoadOptions) -> ImageSet:
        return load_embedded()

    def fetch(self, root: Path | None) -> None:
        raise UsageError("data.download=True has no use with data.name=embedded: it is in the package")


def load_embedded() -> ImageSet:
    """The first 600 + 100 images of every class, (1, 28, 28); origin and licence lie beside them in `embedded/`."""
    with (files("spikeback.data") / "embedded" / "fashion-mnist.npz").open("rb") as file, np.load(file) as arrays:
        part = {name: torch.from_numpy(arrays[name]) for name in arrays.files}
    return ImageSet(
        "Fashion-MNIST, embedded subset",
        "first 600 + 100 images of each class of Fashion-MNIST, not comparable with results on the whole set",
        CLASSES,
        Images(part["train_images"][:, None], part["train_labels"].long()),
        Images(part["test_images"][:, None], part["test_labels"].long()),
    )
