"""Fashion-MNIST: the whole set from the four IDX files its authors publish, or the subset inside the package."""

import gzip
import math
import zlib
from importlib.resources import files
from pathlib import Path

import numpy as np
import torch

from spikeback.data.pictures import Pictures, PictureSet
from spikeback.errors import UsageError

CLASSES = ("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot")
FILES = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")
DEBIAN = Path("/usr/share/datasets/fashion-mnist")  # where Debian's package dataset-fashion-mnist puts them


def read_bytes(path: Path) -> bytes:
    """The file's content, unpacked if its name ends in .gz; a damaged one is a UsageError."""
    try:
        return gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (OSError, EOFError, zlib.error) as error:
        raise UsageError(f"{path} cannot be read ({error}): fetch it again") from None


def read_idx(path: Path) -> torch.Tensor:
    """Read an IDX file of unsigned bytes: 0, 0, type 8, number of dimensions, each dimension as big-endian int32, data.

    Returns uint8 of the dimensions the file states; anything else in the file raises UsageError.
    """
    content = read_bytes(path)
    if len(content) < 4 or content[:3] != b"\0\0\x08":
        raise UsageError(f"{path} is not an IDX file of bytes: it must start with 00 00 08, not {content[:3].hex(' ')}")
    start = 4 + 4 * content[3]
    if len(content) < start:
        raise UsageError(f"{path} is cut off within its header: fetch it again")
    shape = np.frombuffer(content[4:start], ">i4").tolist()
    if len(content) != start + math.prod(shape):
        held = len(content) - start
        raise UsageError(f"{path} holds {held} bytes of data, its header {shape} asks for {math.prod(shape)}")
    return torch.from_numpy(np.frombuffer(content, np.uint8, offset=start).reshape(shape).copy())


def find_files(root: Path) -> list[Path] | None:
    """The four files, plain or .gz, in `root` or where torchvision puts them below it; None if one is missing."""
    for folder in (root, root / "FashionMNIST" / "raw"):
        candidates = [(folder / name, folder / f"{name}.gz") for name in FILES]
        found = [path for pair in candidates for path in [p for p in pair if p.is_file()][:1]]
        if len(found) == len(FILES):
            return found
    return None


def load_fashion_mnist(root: Path | None = None) -> PictureSet | None:
    """The whole set from `root`, or with root None from Debian's package; None if that package is not installed.

    Raises UsageError if an explicit root lacks a file, or if a file is damaged.
    """
    found = find_files(DEBIAN if root is None else root)
    if found is None and root is not None:
        raise UsageError(f"--data.root {root} lacks Fashion-MNIST; expected {', '.join(FILES)}, each plain or .gz")
    if found is None:
        return None
    provenance = "Zalando's Fashion-MNIST, whole set, official split"
    return PictureSet("Fashion-MNIST", provenance, CLASSES, _split(*found[:2]), _split(*found[2:]))


def load_embedded() -> PictureSet:
    """The first 600 + 100 pictures of every class, (1, 28, 28); origin and licence lie beside them in `embedded/`."""
    with (files("spikeback.data") / "embedded" / "fashion-mnist.npz").open("rb") as file, np.load(file) as arrays:
        part = {name: torch.from_numpy(arrays[name]) for name in arrays.files}
    return PictureSet(
        "Fashion-MNIST, embedded subset",
        "first 600 + 100 pictures of each class of Fashion-MNIST, not comparable with results on the whole set",
        CLASSES,
        Pictures(part["train_images"][:, None], part["train_labels"].long()),
        Pictures(part["test_images"][:, None], part["test_labels"].long()),
    )


def _split(images_file: Path, labels_file: Path) -> Pictures:
    images, labels = read_idx(images_file), read_idx(labels_file).long()
    if images.ndim != 3 or labels.ndim != 1 or len(images) != len(labels):
        shapes = f"{tuple(images.shape)} and {tuple(labels.shape)}"
        raise UsageError(f"{images_file} and {labels_file} must hold N x 28 x 28 pictures and N labels, not {shapes}")
    if labels.numel() and int(labels.max()) >= len(CLASSES):
        raise UsageError(f"{labels_file} holds the label {int(labels.max())}; the classes are 0 to {len(CLASSES) - 1}")
    return Pictures(images[:, None], labels)
