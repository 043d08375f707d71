"""Small images: a set in memory, trees of files, and the four IDX files."""

import gzip
import hashlib
import os
import struct
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from spikeback.data import Images, ImageSet
from spikeback.data.sets.fashion_mnist import SHA256

from .batches import Recordings, RecordingSet

IDX_NAMES = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")


def forbid(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """Let listing a folder fail as without permission, also for the superuser."""
    listed = Path.iterdir

    def iterdir(path: Path) -> Iterator[Path]:
        if path == folder:
            raise PermissionError(13, "Permission denied", str(path))
        return listed(path)

    monkeypatch.setattr(Path, "iterdir", iterdir)


@pytest.fixture
def image_set() -> ImageSet:
    """3 classes with 60, 30 and 10 training images, shuffled; 13 test images; (2, 6, 5)."""
    rng = torch.Generator().manual_seed(1)
    labels = torch.tensor([0] * 60 + [1] * 30 + [2] * 10)[torch.randperm(100, generator=rng)]

    def images(y: torch.Tensor) -> Images:
        return Images(torch.randint(0, 256, (len(y), 2, 6, 5), dtype=torch.uint8, generator=rng), y)

    return ImageSet("tiny", "made up", ("a", "b", "c"), images(labels), images(torch.arange(13) % 3))


@pytest.fixture
def draw_image(tmp_path: Path) -> Callable[..., np.ndarray]:
    """draw_image("a/1.png", size=(h, w), mode="RGB") writes random pixels below tmp_path and returns them."""
    rng = np.random.default_rng(0)

    def draw(name: str, size: tuple[int, int] = (8, 8), mode: str = "RGB") -> np.ndarray:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = rng.integers(0, 256, (*size, 3) if mode == "RGB" else size, dtype=np.uint8)
        Image.fromarray(pixels).save(path)
        return pixels

    return draw


@pytest.fixture
def write_idx(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]]:
    """Writes 40 + 20 images, 2 x 3 pixels, as the four IDX files into tmp_path/folder; returns the four arrays.

    `published` makes their checksums those that are expected of Fashion-MNIST.
    """

    def write(
        folder: str = ".", packed: bool = False, published: bool = False
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        rng = np.random.default_rng(0)
        images = [rng.integers(0, 256, (n, 2, 3), dtype=np.uint8) for n in (40, 20)]
        labels = [rng.permutation(np.arange(n, dtype=np.uint8) % 10) for n in (40, 20)]
        arrays = images[0], labels[0], images[1], labels[1]
        (tmp_path / folder).mkdir(parents=True, exist_ok=True)
        for name, array in zip(IDX_NAMES, arrays, strict=True):
            content = struct.pack(f">4B{array.ndim}i", 0, 0, 8, array.ndim, *array.shape) + bytes(
                array.flatten().tolist()
            )
            path = tmp_path / folder / (f"{name}.gz" if packed else name)
            path.write_bytes(gzip.compress(content) if packed else content)
            if published:
                monkeypatch.setitem(SHA256, name, hashlib.sha256(content).hexdigest())
        return arrays

    return write


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real samples: SPIKEBACK_DATA, else shared/data beside the checkout; skips where it is absent."""
    beside = Path(__file__).parents[3] / "shared" / "data"
    folder = Path(os.environ.get("SPIKEBACK_DATA", beside))
    if not folder.is_dir():
        pytest.skip(f"no real samples at {folder}; SPIKEBACK_DATA may name their folder")
    return folder


@pytest.fixture
def recording_set() -> RecordingSet:
    """40 + 10 recordings of 3 frames, 2 x 6 x 5."""
    rng = torch.Generator().manual_seed(2)
    parts = (torch.randint(0, 256, (n, 3, 2, 6, 5), dtype=torch.uint8, generator=rng) for n in (40, 10))
    train, test = (Recordings(frames, torch.arange(len(frames)) % 2) for frames in parts)
    return RecordingSet(train, test)
