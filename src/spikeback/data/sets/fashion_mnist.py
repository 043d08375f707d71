"""Fashion-MNIST: the whole set from the four IDX files its authors publish, or the subset inside the package."""

import gzip
import hashlib
import math
import zlib
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path

import numpy as np
import torch

from spikeback.data.images import Images, ImageSet
from spikeback.data.sets.embedded import CLASSES, load_embedded
from spikeback.data.sets.source import LoadOptions, Published, Source
from spikeback.errors import UsageError

SHA256 = {  # of the four files, unpacked: the archives differ from mirror to mirror
    "train-images-idx3-ubyte": "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
    "train-labels-idx1-ubyte": "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
    "t10k-images-idx3-ubyte": "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
    "t10k-labels-idx1-ubyte": "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
}
FILES = tuple(SHA256)
DEBIAN = Path("/usr/share/datasets/fashion-mnist")  # where Debian's package dataset-fashion-mnist puts them


class FashionMNIST(Source):
    """The whole set where it is installed, else the subset in the package."""

    name, title, fetched = "fashion-mnist", "Fashion-MNIST", "FashionMNIST"
    root = "optional"
    classes = CLASSES
    published = Published(60_000, 10, 1, 28)

    def open(self, root: Path | None, options: LoadOptions) -> ImageSet:
        return load_fashion_mnist(root, options.unchecked) or load_embedded()

    def packed(self, root: Path) -> Mapping[Path, Callable[[], object]]:
        some = [paths for paths in places(root) if any(path.exists() for path in paths)]
        # the place that is read is one with all four files, if there is one
        paths = max(some, key=lambda paths: all(path.is_file() for path in paths), default=[])
        return {path: partial(read_published, path) for path in paths}


def read_bytes(path: Path) -> bytes:
    """The file's content, unpacked if its name ends in .gz; a damaged one is a UsageError."""
    try:
        return gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (OSError, EOFError, zlib.error) as error:
        raise UsageError(f"{path} cannot be read ({error}): fetch it again") from None


def read_idx(path: Path, sha256: str | None = None) -> torch.Tensor:
    """Read an IDX file of unsigned bytes: 0, 0, type 8, number of dimensions, each dimension as big-endian int32, data.

    Returns uint8 of the dimensions the file states; anything else in the file, or content whose `sha256` (hex, of the
    unpacked file) is another, raises UsageError.
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
    if sha256 and hashlib.sha256(content).hexdigest() != sha256:  # so its shape, too, is the published one
        raise UsageError(
            f"{path}, {' x '.join(map(str, shape))}, is not Fashion-MNIST's: its sha256, unpacked, should be {sha256}; "
            "fetch it again, or, if other images are meant, add data.unchecked=True"
        )
    return torch.from_numpy(np.frombuffer(content, np.uint8, offset=start).reshape(shape).copy())


def read_published(path: Path) -> torch.Tensor:
    """One of the four files, plain or .gz, whose content must be the published one."""
    return read_idx(path, SHA256[path.name.removesuffix(".gz")])


def places(root: Path) -> Iterator[list[Path]]:
    """The four files in `root`, then where torchvision puts them below it; .gz where there is no plain one."""
    for folder in (root, root / "FashionMNIST" / "raw"):
        yield [path if (path := folder / name).is_file() else folder / f"{name}.gz" for name in FILES]


def find_files(root: Path) -> list[Path] | None:
    """The four files that are read; None if one is missing."""
    return next((paths for paths in places(root) if all(path.is_file() for path in paths)), None)


def load_fashion_mnist(root: Path | None = None, unchecked: bool = False) -> ImageSet | None:
    """The whole set from `root`, or with root None from Debian's package; None if that package is not installed.

    With `unchecked`, images of any size and number in four files of these names; they are not called Fashion-MNIST.
    Raises UsageError if an explicit root lacks a file, or if a file is damaged or not the published one.
    """
    folder = DEBIAN if root is None else root
    found = find_files(folder)
    if found is None and root is not None:
        raise UsageError(f"data.root={root} lacks Fashion-MNIST; expected {', '.join(FILES)}, each plain or .gz")
    if found is None:
        return None
    if not unchecked:
        provenance = "Zalando's Fashion-MNIST, whole set, official split, sha256 sums checked"
        train, test = (_split(*map(read_published, pair)) for pair in (found[:2], found[2:]))
        return ImageSet("Fashion-MNIST", provenance, CLASSES, train, test)
    train, test = (_split(*_pair(*pair)) for pair in (found[:2], found[2:]))
    if train.shape != test.shape:
        raise UsageError(f"{found[0]} and {found[2]} differ in the size of their images: {train.shape}, {test.shape}")
    classes = tuple(map(str, range(1 + max(int(part.labels.max()) for part in (train, test)))))
    name = f"IDX images in {folder.resolve().name}, unchecked"
    return ImageSet(name, "read without checking the files' sha256 sums", classes, train, test)


def _pair(images_file: Path, labels_file: Path) -> tuple[torch.Tensor, torch.Tensor]:
    """Images and labels of files that nobody vouches for."""
    images, labels = read_idx(images_file), read_idx(labels_file)
    if images.ndim != 3 or labels.ndim != 1 or len(images) != len(labels) or not images.numel():
        shapes = f"{tuple(images.shape)} and {tuple(labels.shape)}"
        raise UsageError(f"{images_file} and {labels_file} must hold N x H x W images and N labels, not {shapes}")
    return images, labels


def _split(images: torch.Tensor, labels: torch.Tensor) -> Images:
    return Images(images[:, None], labels.long())
