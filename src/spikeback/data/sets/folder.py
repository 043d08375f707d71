"""Pictures from folders: one folder a class for training, or any tree of pictures to be classified."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from rich.console import Console
from rich.progress import Progress
from torch import Tensor

from spikeback.data.pictures import Pictures, PictureSet, fit, normalise
from spikeback.data.split import hold_out
from spikeback.data.tree import HALVES, WHOLE, Classes, Kind, Listing, deeper, entries, like_classes, list_classes
from spikeback.errors import UsageError
from spikeback.files import as_path, as_text

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".ppm", ".pgm", ".tif", ".tiff")  # those of torchvision
PICTURES = Kind("pictures", SUFFIXES)
TEST_FRACTION = 0.2  # of every class, where the folder brings no test split
CIFAR10 = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
CIFAR10_COUNTS = (50_000, 10_000)
CHUNK = 256  # files a thread reads at a time
MANY = 2000  # files from which on a progress bar is worth its line


def load_folder(root: Path, size: int | None = None) -> PictureSet:
    """Read root/<half>/<class>/* of train/ and test/ or val/, or all three; or root/<class>/*, a fifth as test split.

    Of train/, val/ and test/, val/ is held out; of train/ and val/ it is the test split. Classes are the folders'
    names, sorted. Pictures are RGB unless every one of them is greyscale. `size` scales each until its shorter side
    has that many pixels and crops the centre; without it all must have the same size.
    Raises UsageError naming the folder or file that does not fit.
    """
    listing = list_folder(root)
    trees, division = listing.trees, divide(listing)
    images, labels = decode(division.paths, (size, size) if size else None), division.labels

    name = as_text(root.resolve().name)
    provenance, cifar = f"pictures from the folder {name}", _is_cifar10_jpeg(list(trees.values()))
    if cifar:
        provenance += ", of CIFAR-10's classes and size, as JPEG: not comparable with published CIFAR-10 numbers"
        if tuple(map(_count, trees.values())) == CIFAR10_COUNTS:
            name = "CIFAR-10 (JPEG)"
            provenance = "CIFAR-10 re-encoded as JPEG, not comparable with published CIFAR-10 numbers"
    provenance += division.words
    if size:
        provenance += f"; resized to {size} x {size}"
    train, test = (Pictures(images[part], labels[part]) for part in (division.train, division.test))
    classes, held_out = tuple(next(iter(trees.values()))), division.held_out
    return PictureSet(name, provenance, classes, train, test, symmetric=cifar, held_out=held_out, notes=listing.notes)


@dataclass(frozen=True)
class Division:
    """The files of a folder with their labels, int64 (N,), and the rows, int64, to train and to test on.

    `held_out`: the rows of `train` that val/ holds, None without it. `words`: what was done, for the provenance.
    """

    paths: list[Path]
    labels: Tensor
    train: Tensor
    test: Tensor
    held_out: Tensor | None
    words: str


def divide(listing: Listing) -> Division:
    """Divide a folder by its halves, or draw a fifth of every class as the test split."""
    trees = listing.trees
    paths = [path for tree in trees.values() for files in tree.values() for path in files]
    labels = torch.tensor([y for tree in trees.values() for y, files in enumerate(tree.values()) for _ in files])
    if WHOLE in trees:
        drawn = f"; {TEST_FRACTION:.0%} of every class drawn as the test split (seed 0)"
        return Division(paths, labels, *hold_out(labels, TEST_FRACTION), None, drawn)
    rows = dict(zip(trees, torch.arange(len(labels)).split([_count(tree) for tree in trees.values()]), strict=True))
    stand_in = listing.folders["test"].name
    words = f"; {stand_in}/ is the test split" if stand_in.lower() in HALVES["val"] else ""
    words += f"; {listing.folders['val'].name}/ is held out" if "val" in rows else ""
    train = torch.cat([rows["train"], *([rows["val"]] if "val" in rows else [])])
    return Division(paths, labels, train, rows["test"], rows.get("val"), words)


def _count(tree: Classes) -> int:
    return sum(map(len, tree.values()))


def list_folder(root: Path, kind: Kind = PICTURES) -> Listing:
    """The classes of a folder of pictures, or of samples of another kind. Nothing is opened.

    Raises UsageError naming the folder that does not fit.
    """
    try:
        listing = list_classes(root, kind)
    except UsageError as error:
        raise UsageError(f"{error}{_of_another_kind(root, kind)}") from None
    for name, files in listing.trees.get(WHOLE, {}).items():
        if len(files) == 1:
            one = kind.noun.removesuffix("s")
            raise UsageError(f"{root / name} holds one {one}; two are needed, one to train on and one to test")
    return listing


def _of_another_kind(root: Path, kind: Kind) -> str:
    """What to add where samples of the other kind than the one that was asked for lie in folders by class."""
    from spikeback.data.sets.recordings import RECORDINGS  # which needs this module

    name, other = ("recordings", RECORDINGS) if kind is PICTURES else ("folder", PICTURES)
    if root.is_dir() and not like_classes(root, kind) and not deeper(root, kind):
        for place in [root] if like_classes(root, other) else deeper(root, other):
            return f"; it holds {other.noun}: --data {name} --data.root {place} takes them"
    return ""


def _is_cifar10_jpeg(trees: Sequence[dict[str, list[Path]]]) -> bool:
    """Whether these are CIFAR-10's classes and JPEG pictures of 32 x 32; one of each class in each half is opened."""
    if any(tuple(tree) != CIFAR10 for tree in trees):
        return False
    for path in (files[0] for tree in trees for files in tree.values()):
        try:
            with Image.open(path) as picture:
                if (picture.format, picture.size) != ("JPEG", (32, 32)):
                    return False
        except OSError:  # `decode` has named it
            return False
    return True


def find_pictures(where: str | Path) -> tuple[list[Path], list[Path]]:
    """The pictures in a folder and the folders below it, sorted, and the other files there; of a file, that file.

    Links to folders are followed, but for those that lead back to a folder they lie in. Raises UsageError for what is
    missing, empty or cannot be read.
    """
    root = as_path(where)
    if root.is_file():
        return [root], []
    if not root.is_dir():
        raise UsageError(f"{root} is neither a file nor a folder; give a picture or a folder of pictures to classify")
    files = [*_below(root, frozenset())]
    pictures = sorted(path for path in files if PICTURES.fits(path) and not path.is_dir())
    if not pictures:
        raise UsageError(f"{root} holds no pictures ({', '.join(SUFFIXES)})")
    return pictures, [path for path in files if not PICTURES.fits(path) or path.is_dir()]


def read_pictures(folder: str | Path, shape: Sequence[int], mean: Tensor, std: Tensor) -> tuple[list[Path], Tensor]:
    """Read every picture in a folder and the folders below it as a network trained on `shape` = (C, H, W) needs it.

    Returns the paths, sorted, and float32 (N, C, H, W), normalised by the training pictures' `mean` and `std`, each
    (C,). Other files are left out. Raises UsageError for a folder that is missing, empty or cannot be read, and for a
    file that is broken.
    """
    check_shape(shape, folder)
    paths, _ = find_pictures(folder)
    channels, height, width = shape
    return paths, normalise(decode(paths, (height, width), channels), mean, std)


def check_shape(shape: Sequence[int], where: str | Path) -> None:
    """Raises UsageError unless a network trained on samples of this shape takes pictures."""
    if len(shape) != 3:
        raise UsageError(
            f"the network was trained on frames of events and takes these, (T, 2, H, W) = {tuple(shape)}, not pictures "
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


def decode(paths: Sequence[Path], shape: tuple[int, int] | None = None, channels: int | None = None) -> Tensor:
    """Decode pictures, several at a time, into uint8 (N, C, H, W).

    `shape` is the (H, W) to scale and crop to, None demands equal sizes; `channels` is 1 or 3, None: 1 if all pictures
    are greyscale, else 3. Raises UsageError naming the first file that is broken or differs in size.
    """
    images: list[Tensor] = []
    for image in decoded(paths, partial(decode_one, shape=shape, channels=channels)):
        if isinstance(image, UsageError):
            raise image
        images.append(image)
        if image.shape[1:] != images[0].shape[1:]:
            raise UsageError(differ(paths[0], images[0].shape, paths[len(images) - 1], image.shape))
    most = max(image.shape[0] for image in images)
    return torch.stack([image.expand(most, -1, -1) for image in images])


def decoded(paths: Sequence[Path], read: Callable[[Path], Tensor]) -> Iterator[Tensor | UsageError]:
    """Each picture as `read` makes it, in order, several read at a time; of a broken one, what is wrong with it."""

    def attempt(path: Path) -> Tensor | UsageError:
        try:
            return read(path)
        except UsageError as error:
            return error

    chunks = [paths[i : i + CHUNK] for i in range(0, len(paths), CHUNK)]
    console = Console(stderr=True)
    progress = Progress(console=console, transient=True, disable=len(paths) <= MANY or not console.is_terminal)
    with progress, ThreadPoolExecutor() as pool:
        task = progress.add_task("Reading pictures", total=len(paths))
        try:
            for images in pool.map(lambda chunk: [attempt(path) for path in chunk], chunks):
                yield from images
                progress.advance(task, len(images))
        finally:
            pool.shutdown(wait=False, cancel_futures=True)  # after an error or Ctrl-C, read no further


def decode_one(path: Path, shape: tuple[int, int] | None = None, channels: int | None = None) -> Tensor:
    """One picture as uint8 (C, H, W); `channels` None: 1 if it is stored as greyscale, else 3. See `decode`.

    As torchvision's ImageFolder reads it: Pillow decodes, rows and columns are as stored, whatever EXIF says of their
    orientation, transparency is dropped. Two things differ. 16 bits of grey are scaled to 8, where Pillow clips them.
    A file of several pictures, animated or of several pages, and one of 32 bits a pixel count as broken.
    """
    try:
        with Image.open(path) as picture:
            array = _pixels(picture, channels)
    except Exception as error:  # a broken file raises whatever its decoder meets first
        raise UsageError(f"{path} cannot be read as a picture: {' '.join(str(error).split())}") from None
    image = torch.from_numpy(array).reshape(*array.shape[:2], -1).permute(2, 0, 1)
    return fit(image, *shape) if shape else image


def _pixels(picture: Image.Image, channels: int | None) -> np.ndarray:
    """uint8 (H, W) or (H, W, 3). Raises ValueError for what would not be one picture of 8 bits a channel."""
    many = getattr(picture, "n_frames", 1)
    if many > 1 and picture.format != "MPO":  # cameras' JPEG, with a preview or a second view behind the picture
        raise ValueError(f"it holds {many} pictures, save the one that is meant as a file of its own")
    if picture.mode.startswith("I;16"):
        picture = Image.fromarray((np.asarray(picture) >> 8).astype(np.uint8))
    elif picture.mode in ("I", "F"):
        values = np.asarray(picture)
        if picture.mode == "F" or values.min() < 0 or values.max() > 0xFFFF:
            raise ValueError(f"its pixels have 32 bits (mode {picture.mode}), save it with 8 or 16")
        picture = Image.fromarray((values >> 8).astype(np.uint8))
    grey = channels == 1 or (channels is None and picture.mode in ("1", "L", "LA", "La"))
    if picture.mode == "P" and "transparency" in picture.info:
        picture = picture.convert("RGBA")  # drops it as well, without a warning
    mode = "L" if grey else "RGB"
    return np.array(picture if picture.mode == mode else picture.convert(mode))


def differ(first: Path, one: Sequence[int], second: Path, other: Sequence[int]) -> str:
    """What to say of two pictures of different shape (C, H, W)."""
    sizes = [f"{path} is {shape[2]} x {shape[1]}" for path, shape in ((first, one), (second, other))]
    return f"pictures differ in size: {', '.join(sizes)} pixels; --data.size 32 would bring all to 32 x 32"
