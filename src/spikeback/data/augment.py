"""Augmentation and sample order as pure functions: of (seed, epoch, index), and of (seed, epoch).

The sampler hands each epoch to the dataset together with the indices, so a batch is the same whichever worker makes it
and whether or not the run was interrupted before. Global random state is neither read nor changed.
"""

from collections.abc import Iterator
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import Dataset, Sampler

from spikeback.data.pictures import Pictures, normalise

ORDER, AUGMENTATION = 0, 1  # two independent random streams of every epoch


class EpochSampler(Sampler[tuple[int, int]]):
    """Yields (epoch, index) for every index below `length`, shuffled by (seed, epoch). Lightning calls `set_epoch`."""

    def __init__(self, length: int, seed: int) -> None:
        self.length, self.seed, self.epoch = length, seed, 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        return self.length

    def __iter__(self) -> Iterator[tuple[int, int]]:
        order = np.random.default_rng((ORDER, self.seed, self.epoch)).permutation(self.length)
        return ((self.epoch, index) for index in order.tolist())


class PictureDataset(Dataset[tuple[Tensor, Tensor]]):
    """Batches of those of `pictures` that `indices` names, normalised: x float32 (B, C, H, W), y int64 (B,)."""

    def __init__(self, pictures: Pictures, indices: Tensor, mean: Tensor, std: Tensor) -> None:
        self.images, self.labels, self.indices = pictures.images, pictures.labels, indices
        self.mean, self.std = mean, std

    def __len__(self) -> int:
        return len(self.indices)

    def __getitems__(self, keys: list[int]) -> tuple[Tensor, Tensor]:
        chosen = self.indices[keys]
        return normalise(self.images[chosen], self.mean, self.std), self.labels[chosen]


class AugmentedDataset(PictureDataset):
    """The same for keys (epoch, index), each picture shifted by up to `padding` pixels; `flip` mirrors half of them."""

    def __init__(
        self, pictures: Pictures, indices: Tensor, mean: Tensor, std: Tensor, *, seed: int, padding: int, flip: bool
    ) -> None:
        super().__init__(pictures, indices, mean, std)
        self.seed, self.padding, self.flip = seed, padding, flip

    def __getitems__(self, keys: list[tuple[int, int]]) -> tuple[Tensor, Tensor]:
        epoch, indices = keys[0][0], [index for _, index in keys]
        shift, mirror = draw(self.seed, epoch, len(self), self.padding)
        chosen = self.indices[indices]
        images = crop_and_flip(self.images[chosen], shift[:, indices], mirror[indices] & self.flip, self.padding)
        return normalise(images, self.mean, self.std), self.labels[chosen]


@lru_cache(maxsize=2)
def draw(seed: int, epoch: int, length: int, padding: int) -> tuple[Tensor, Tensor]:
    """What happens to each of `length` pictures in one epoch: shift int64 (2, N) in 0..2 padding, mirror bool (N,)."""
    rng = np.random.default_rng((AUGMENTATION, seed, epoch))
    mirror = rng.random(length) < 0.5
    return torch.from_numpy(rng.integers(0, 2 * padding + 1, (2, length))), torch.from_numpy(mirror)


def crop_and_flip(images: Tensor, shift: Tensor, flip: Tensor, padding: int) -> Tensor:
    """(B, C, H, W): pad with black, cut out H x W at `shift` (2, B) = (top, left), mirror where `flip` (B,).

    Does to the whole batch what torchvision's pad, crop and horizontal_flip do to one picture.
    """
    height, width = images.shape[-2:]
    windows = F.pad(images, [padding] * 4).unfold(2, height, 1).unfold(3, width, 1)  # (B, C, 2p+1, 2p+1, H, W), a view
    cropped = windows[torch.arange(len(images)), :, shift[0], shift[1]]  # (B, C, H, W)
    return torch.where(flip[:, None, None, None], cropped.flip(-1), cropped)
