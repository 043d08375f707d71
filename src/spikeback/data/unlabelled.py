"""Images that a trained network is to classify: a file, or a tree of files of any depth."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from torch import Tensor

from spikeback.data.decode import IMAGES, decode
from spikeback.data.images import normalise
from spikeback.data.tree import entries
from spikeback.errors import UsageError
from spikeback.files import as_path


def find_images(where: str | Path) -> tuple[list[Path], list[Path]]:
    """The images in a folder and the folders below it, sorted, and the other files there; of a file, that file.

    Links to folders are followed, but for those that lead back to a folder they lie in. Raises UsageError for what is
    missing, empty or cannot be read.
    """
    root = as_path(where)
    if root.is_file():
        return [root], []
    if not root.is_dir():
        raise UsageError(f"{root} is neither a file nor a folder; give an image or a folder of images to classify")
    files = [*_below(root, frozenset())]
    images = sorted(path for path in files if IMAGES.fits(path) and not path.is_dir())
    if not images:
        raise UsageError(f"{root} holds no images ({', '.join(IMAGES.suffixes)})")
    return images, [path for path in files if not IMAGES.fits(path) or path.is_dir()]


def read_images(folder: str | Path, shape: Sequence[int], mean: Tensor, std: Tensor) -> tuple[list[Path], Tensor]:
    """Read every image in a folder and the folders below it as a network trained on `shape` = (C, H, W) needs it.

    Returns the paths, sorted, and float32 (N, C, H, W), normalised by the training images' `mean` and `std`, each
    (C,). Other files are left out. Raises UsageError for a folder that is missing, empty or cannot be read, and for a
    file that is broken.
    """
    check_shape(shape, folder)
    paths, _ = find_images(folder)
    channels, height, width = shape
    return paths, normalise(decode(paths, (height, width), channels), mean, std)


def check_shape(shape: Sequence[int], where: str | Path) -> None:
    """Raises UsageError unless a network trained on samples of this shape takes images."""
    if len(shape) != 3:
        raise UsageError(
            f"the network was trained on frames of events and takes these, (T, 2, H, W) = {tuple(shape)}, not images "
            f"as in {where}; `spikeback test RUN --data.root DIR` tries it on a folder of recordings, as in training"
        )


def _below(folder: Path, above: frozenset[Path]) -> Iterator[Path]:
    """The visible files in a folder and the folders below it, those that links lead to among them.

    `above`: the folders that this one lies in. A link back to one of them would lead round in circles: it is itself
    handed over.
    """
    real = folder.resolve()
    inside = above | {real, *real.parents}
    for path in entries(folder):
        if path.is_dir() and path.resolve() not in inside:
            yield from _below(path, inside)
        else:
            yield path
