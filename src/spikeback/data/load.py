"""Datasets by name."""

from dataclasses import replace
from pathlib import Path

from spikeback.data.fashion_mnist import load_embedded, load_fashion_mnist
from spikeback.data.folder import load_folder
from spikeback.data.pictures import Pictures, PictureSet, fit
from spikeback.errors import UsageError

SOURCES = ("embedded", "fashion-mnist", "folder")


def load(name: str, root: str | Path | None = None, size: int | None = None) -> PictureSet:
    """Load a dataset into memory.

    "embedded": the Fashion-MNIST subset inside the package. "fashion-mnist": the whole set from the IDX files in `root`
    or from Debian's package dataset-fashion-mnist; without both, the subset, whose name says so. "folder": the tree of
    pictures at `root`, see `load_folder`. `size` scales every picture to size x size pixels.
    Raises UsageError for an unknown name and for a root that is missing, superfluous or lacks the files.
    """
    if name not in SOURCES:
        raise UsageError(f"--data.name '{name}' is unknown; choose from {', '.join(SOURCES)}")
    folder = None if root is None else Path(root).expanduser()
    if name == "folder":
        if folder is None:
            raise UsageError(
                "--data.name folder needs --data.root, a folder with train/ and test/ or one folder a class"
            )
        return load_folder(folder, size)
    if name == "embedded" and folder is not None:
        raise UsageError(
            f"--data.root {root} has no use with --data.name embedded; try --data.name fashion-mnist or folder"
        )
    whole = load_fashion_mnist(folder) if name == "fashion-mnist" else None
    return _resized(whole or load_embedded(), size)


def _resized(pictures: PictureSet, size: int | None) -> PictureSet:
    if size is None or pictures.train.images.shape[-2:] == (size, size):
        return pictures
    train, test = (Pictures(fit(part.images, size, size), part.labels) for part in (pictures.train, pictures.test))
    provenance = f"{pictures.provenance}; resized to {size} x {size}"
    return replace(pictures, provenance=provenance, train=train, test=test)
