"""Files of images to tensors."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from rich.console import Console
from rich.progress import Progress
from torch import Tensor

from spikeback.data.images import fit
from spikeback.data.tree import Kind
from spikeback.errors import UsageError

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".ppm", ".pgm", ".tif", ".tiff")  # those of torchvision
IMAGES = Kind("images", SUFFIXES)
CHUNK = 256  # files a thread reads at a time
MANY = 2000  # files from which on a progress bar is worth its line


def decode(paths: Sequence[Path], shape: tuple[int, int] | None = None, channels: int | None = None) -> Tensor:
    """Decode images, several at a time, into uint8 (N, C, H, W).

    `shape` is the (H, W) to scale and crop to, None demands equal sizes; `channels` is 1 or 3, None: 1 if all images
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
    """Each image as `read` makes it, in order, several read at a time; of a broken one, what is wrong with it."""

    def attempt(path: Path) -> Tensor | UsageError:
        try:
            return read(path)
        except UsageError as error:
            return error

    chunks = [paths[i : i + CHUNK] for i in range(0, len(paths), CHUNK)]
    console = Console(stderr=True)
    progress = Progress(console=console, transient=True, disable=len(paths) <= MANY or not console.is_terminal)
    with progress, ThreadPoolExecutor() as pool:
        task = progress.add_task("Reading images", total=len(paths))
        try:
            for images in pool.map(lambda chunk: [attempt(path) for path in chunk], chunks):
                yield from images
                progress.advance(task, len(images))
        finally:
            pool.shutdown(wait=False, cancel_futures=True)  # after an error or Ctrl-C, read no further


def decode_one(path: Path, shape: tuple[int, int] | None = None, channels: int | None = None) -> Tensor:
    """One image as uint8 (C, H, W); `channels` None: 1 if it is stored as greyscale, else 3. See `decode`.

    As torchvision's ImageFolder reads it: Pillow decodes, rows and columns are as stored, whatever EXIF says of their
    orientation, transparency is dropped. Two things differ. 16 bits of grey are scaled to 8, where Pillow clips them.
    A file of several images, animated or of several pages, and one of 32 bits a pixel count as broken.
    """
    try:
        with Image.open(path) as opened:
            array = _pixels(opened, channels)
    except Exception as error:  # a broken file raises whatever its decoder meets first
        raise UsageError(f"{path} cannot be read as an image: {' '.join(str(error).split())}") from None
    image = torch.from_numpy(array).reshape(*array.shape[:2], -1).permute(2, 0, 1)
    return fit(image, *shape) if shape else image


def _pixels(image: Image.Image, channels: int | None) -> np.ndarray:
    """uint8 (H, W) or (H, W, 3). Raises ValueError for what would not be one image of 8 bits a channel."""
    many = getattr(image, "n_frames", 1)
    if many > 1 and image.format != "MPO":  # cameras' JPEG, with a preview or a second view behind the image
        raise ValueError(f"it holds {many} images, save the one that is meant as a file of its own")
    if image.mode.startswith("I;16"):
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    elif image.mode in ("I", "F"):
        values = np.asarray(image)
        if image.mode == "F" or values.min() < 0 or values.max() > 0xFFFF:
            raise ValueError(f"its pixels have 32 bits (mode {image.mode}), save it with 8 or 16")
        image = Image.fromarray((values >> 8).astype(np.uint8))
    grey = channels == 1 or (channels is None and image.mode in ("1", "L", "LA", "La"))
    if image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")  # drops it as well, without a warning
    mode = "L" if grey else "RGB"
    return np.array(image if image.mode == mode else image.convert(mode))


def differ(first: Path, one: Sequence[int], second: Path, other: Sequence[int]) -> str:
    """What to say of two images of different shape (C, H, W)."""
    sizes = [f"{path} is {shape[2]} x {shape[1]}" for path, shape in ((first, one), (second, other))]
    return f"images differ in size: {', '.join(sizes)} pixels; data.size=32 would bring all to 32 x 32"
