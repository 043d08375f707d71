"""Pictures from folders: one folder a class for training, or any tree of pictures to be classified."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from rich.console import Console
from rich.progress import Progress
from torch import Tensor

from spikeback.data.pictures import Pictures, PictureSet, fit, normalise
from spikeback.data.split import hold_out
from spikeback.errors import UsageError
from spikeback.files import as_path, as_text

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp")
TEST_FRACTION = 0.2  # of every class, where the folder brings no test split
CIFAR10 = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
CIFAR10_COUNTS = (50_000, 10_000)
CHUNK = 256  # files a thread reads at a time
MANY = 2000  # files from which on a progress bar is worth its line


def load_folder(root: Path, size: int | None = None) -> PictureSet:
    """Read root/train/<class>/* and root/test/<class>/*, or root/<class>/*, of which a fifth becomes the test split.

    Classes are the folders' names, sorted. Pictures are RGB unless every one of them is greyscale. `size` scales each
    until its shorter side has that many pixels and crops the centre; without it all must have the same size.
    Raises UsageError naming the folder or file that does not fit.
    """
    trees = list_folder(root)
    paths = [path for tree in trees for files in tree.values() for path in files]
    labels = torch.tensor([label for tree in trees for label, files in enumerate(tree.values()) for _ in files])
    images = decode(paths, (size, size) if size else None)

    name = as_text(root.resolve().name)
    provenance = f"pictures from the folder {name}"
    if _is_cifar10_jpeg(trees):
        provenance += ", of CIFAR-10's classes and size, as JPEG: not comparable with published CIFAR-10 numbers"
        if tuple(sum(map(len, tree.values())) for tree in trees) == CIFAR10_COUNTS:
            name = "CIFAR-10 (JPEG)"
            provenance = "CIFAR-10 re-encoded as JPEG, not comparable with published CIFAR-10 numbers"
    if len(trees) == 2:
        count = sum(map(len, trees[0].values()))
        train, test = slice(count), slice(count, None)
    else:
        train, test = hold_out(labels, TEST_FRACTION)
        provenance += f"; {TEST_FRACTION:.0%} of every class drawn as the test split (seed 0)"
    if size:
        provenance += f"; resized to {size} x {size}"
    parted = [Pictures(images[part], labels[part]) for part in (train, test)]
    return PictureSet(name, provenance, tuple(trees[0]), parted[0], parted[1])


def list_folder(root: Path) -> list[dict[str, list[Path]]]:
    """Class name -> files of the training and the test pictures, or of all where these are not divided.

    Nothing is opened. Raises UsageError naming the folder or file that does not fit.
    """
    parts = _parts(root)
    trees = [_class_files(part) for part in parts]
    if trees[0].keys() != trees[-1].keys():
        odd = min(trees[0].keys() ^ trees[-1].keys())
        raise UsageError(f"{parts[0]} and {parts[1]} must have the same class folders; '{odd}' is in only one of them")
    if len(parts) == 1 and (single := [name for name, files in trees[0].items() if len(files) == 1]):
        raise UsageError(f"{root / single[0]} holds one picture; two are needed, one to train on and one to test")
    return trees


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


def read_pictures(folder: str | Path, shape: Sequence[int], mean: Tensor, std: Tensor) -> tuple[list[Path], Tensor]:
    """Read every picture in a folder and the folders below it as a network trained on `shape` = (C, H, W) needs it.

    Returns the paths, sorted, and float32 (N, C, H, W), normalised by the training pictures' `mean` and `std`, each
    (C,). Hidden files are skipped. Raises UsageError for a folder that is missing, empty or cannot be read, and for a
    file that is no picture.
    """
    root = as_path(folder)
    if len(shape) != 3:
        raise UsageError(
            f"the network was trained on frames of events {tuple(shape)}, {root} would have to hold pictures"
        )
    if not root.is_dir():
        raise UsageError(f"{root} is not a folder; give one that holds the pictures to classify")
    paths = sorted(map(_picture, _below(root)))
    if not paths:
        raise UsageError(f"{root} holds no pictures ({', '.join(SUFFIXES)})")
    channels, height, width = shape
    return paths, normalise(decode(paths, (height, width), channels), mean, std)


def _below(folder: Path) -> Iterator[Path]:
    """The visible files in a folder and the folders below it; links to folders are not followed."""
    for path in entries(folder):
        if path.is_dir():
            yield from () if path.is_symlink() else _below(path)
        else:
            yield path


def decode(paths: Sequence[Path], shape: tuple[int, int] | None = None, channels: int | None = None) -> Tensor:
    """Decode pictures, several at a time, into uint8 (N, C, H, W).

    `shape` is the (H, W) to scale and crop to, None demands equal sizes; `channels` is 1 or 3, None: 1 if all pictures
    are greyscale, else 3. Raises UsageError naming the first file that is broken or differs in size.
    """
    chunks = [paths[i : i + CHUNK] for i in range(0, len(paths), CHUNK)]
    images: list[Tensor] = []
    console = Console(stderr=True)
    progress = Progress(console=console, transient=True, disable=len(paths) <= MANY or not console.is_terminal)
    with progress, ThreadPoolExecutor() as pool:
        task = progress.add_task("Reading pictures", total=len(paths))
        try:
            for decoded in pool.map(lambda chunk: [decode_one(path, shape, channels) for path in chunk], chunks):
                for image in decoded:
                    images.append(image)
                    if image.shape[1:] != images[0].shape[1:]:
                        raise UsageError(differ(paths[0], images[0].shape, paths[len(images) - 1], image.shape))
                progress.advance(task, len(decoded))
        finally:
            pool.shutdown(wait=False, cancel_futures=True)  # after an error or Ctrl-C, read no further
    most = max(image.shape[0] for image in images)
    return torch.stack([image.expand(most, -1, -1) for image in images])


def decode_one(path: Path, shape: tuple[int, int] | None = None, channels: int | None = None) -> Tensor:
    """One picture as uint8 (C, H, W); `channels` None: 1 if it is stored as greyscale, else 3. See `decode`.

    As torchvision's ImageFolder reads it: Pillow decodes, rows and columns are as stored, whatever EXIF says of their
    orientation, transparency is dropped. Only 16 bits of grey differ: they are scaled to 8, where Pillow clips them.
    """
    try:
        with Image.open(path) as picture:
            if picture.mode.startswith("I"):  # 16 bits of grey: Pillow would clip them
                picture = Image.fromarray((np.asarray(picture) >> 8).astype(np.uint8))
            grey = channels == 1 or (channels is None and picture.mode in ("1", "L", "LA", "La"))
            mode = "L" if grey else "RGB"
            array = np.array(picture if picture.mode == mode else picture.convert(mode))
    except Exception as error:  # a broken file raises whatever its decoder meets first
        raise UsageError(f"{path} cannot be read as a picture: {error}") from None
    image = torch.from_numpy(array).reshape(*array.shape[:2], -1).permute(2, 0, 1)
    return fit(image, *shape) if shape else image


def differ(first: Path, one: Sequence[int], second: Path, other: Sequence[int]) -> str:
    """What to say of two pictures of different shape (C, H, W)."""
    sizes = [f"{path} is {shape[2]} x {shape[1]}" for path, shape in ((first, one), (second, other))]
    return f"pictures differ in size: {', '.join(sizes)} pixels; --data.size 32 would bring all to 32 x 32"


def _parts(root: Path) -> list[Path]:
    """[train, test] folders, or the root alone if it holds the class folders itself."""
    if not root.is_dir():
        raise UsageError(f"--data.root {root} is not a folder; expected train/<class>/ and test/<class>/, or <class>/")
    given = [part for part in (root / "train", root / "test") if part.is_dir()]
    if len(given) == 1 and _folders(given[0]):  # one without class folders is itself a class, say of vehicles
        raise UsageError(f"--data.root {root} has {given[0].name}/ alone; expected both train/ and test/")
    return given if len(given) == 2 else [root]


def entries(folder: Path) -> list[Path]:
    """What a folder holds, sorted by name, hidden files left out. Raises UsageError if it cannot be read."""
    try:
        return sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    except OSError as error:
        raise UsageError(f"{folder} cannot be read: {error.strerror or error}") from None


def _folders(root: Path) -> list[Path]:
    return [path for path in entries(root) if path.is_dir()]


def _class_files(root: Path) -> dict[str, list[Path]]:
    """Class name -> its pictures, both sorted by name."""
    tree = {as_text(folder.name): [_picture(path) for path in entries(folder)] for folder in _folders(root)}
    if not tree:
        raise UsageError(f"{root} holds no class folders; expected {root}/<class>/ with pictures in each")
    if empty := [name for name, files in tree.items() if not files]:
        raise UsageError(f"{root / empty[0]} is a class without pictures; add some or remove the folder")
    return tree


def _picture(path: Path) -> Path:
    if path.suffix.lower() not in SUFFIXES or not path.is_file():
        raise UsageError(f"{path} is not a picture; expected only {', '.join(SUFFIXES)} files here")
    return path
