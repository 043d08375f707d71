"""Augmentation and sample order as pure functions: of (seed, epoch, index), and of (seed, epoch).

The sampler hands each epoch to the dataset together with the indices, so a batch is the same whichever worker makes it
and whether or not the run was interrupted before. Global random state is neither read nor changed.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import Dataset, Sampler, get_worker_info
from torchvision.transforms.v2 import AutoAugment, AutoAugmentPolicy

from spikeback.data.images import Split, as_input
from spikeback.data.ranks import ProcessRank
from spikeback.errors import UsageError

ORDER, SHIFT, VIEW, POLICY, HOLE = range(5)  # independent random streams of every epoch
GREY = 128  # what AutoAugment moves in from outside, as in the code of the paper's authors


@runtime_checkable
class RandomViews(Protocol):
    """A split that crops its images at random itself, before they are scaled."""

    def read_random(self, indices: Tensor, seeds: Sequence[int]) -> Tensor:
        """As `read`, each image seen through a random crop drawn from its seed."""
        ...


@dataclass(frozen=True)
class Augmentation:
    """What is done to training samples, in this order; `padding`, `policy` and `hole` to images, `roll` to frames.

    `padding`: shift by up to so many pixels, or crop at random; `flip`: mirror half of them; `policy`: AutoAugment's
    policies for CIFAR-10; `hole`: blacken a square of that side; `roll`: shift round the edges by up to so many pixels.
    `axis`: what mirroring reverses, -1, or -2 where the samples' rows run from left to right.
    """

    seed: int
    padding: int = 0
    flip: bool = False
    policy: bool = False
    hole: int = 0
    roll: int = 0
    axis: int = -1


def in_words(augmentation: Augmentation, random_views: bool, side: int) -> str:
    """One line for people; `random_views`: a split that crops at random itself; `side`: the samples' shorter one."""
    options = augmentation
    crop = "cropped at random to any size" if random_views else f"shifted by up to {options.padding} of {side} pixels"
    done = [crop] if options.padding else []
    done += [f"rolled by up to {options.roll} of {side} pixels"] if options.roll else []
    done += ["half of them mirrored" if options.flip else "not mirrored"]
    done += ["AutoAugment"] if options.policy else []
    done += [f"Cutout of {options.hole} pixels"] if options.hole else []
    return ", ".join(done if options.padding or options.roll else ["not shifted", *done])


class EpochSampler(Sampler[tuple[int, int]]):
    """Yields (epoch, index) for every index below `length`, shuffled by (seed, epoch). Lightning calls `set_epoch`.

    With a `process`, only the samples of its rank, of whole batches of `batch_size`.
    """

    def __init__(self, length: int, seed: int, process: ProcessRank | None = None, batch_size: int = 1) -> None:
        self.length, self.seed, self.epoch = length, seed, 0
        self.process, self.batch_size = process or ProcessRank(), batch_size

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        return self.length // self.batch_size * self.batch_size // self.process.world_size

    def __iter__(self) -> Iterator[tuple[int, int]]:
        order = np.random.default_rng((ORDER, self.seed, self.epoch)).permutation(self.length)
        return ((self.epoch, index) for index in self.process.of_order(order, self.batch_size).tolist())


class BatchDataset(Dataset[tuple[Tensor, Tensor]]):
    """Batches of those samples of `split` that `indices` names: x as a network takes it (`as_input`), y int64 (B,)."""

    def __init__(self, split: Split, indices: Tensor, mean: Tensor, std: Tensor) -> None:
        self.split, self.indices, self.mean, self.std = split, indices, mean, std

    def __len__(self) -> int:
        return len(self.indices)

    def __getitems__(self, keys: list[Any]) -> Any:
        try:
            chosen, samples = self.samples(keys)
        except UsageError as error:
            if get_worker_info() is None:
                raise
            return error  # raised by the loader: a worker would wrap it into its traceback
        return as_input(samples, self.mean, self.std), self.split.labels[chosen]

    def samples(self, keys: list[Any]) -> tuple[Tensor, Tensor]:
        """Their indices in the split, and the samples: uint8 (B, *shape)."""
        chosen = self.indices[keys]
        return chosen, self.split.read(chosen)


class AugmentedDataset(BatchDataset):
    """The same for keys (epoch, index), augmented."""

    def __init__(self, split: Split, indices: Tensor, mean: Tensor, std: Tensor, augmentation: Augmentation) -> None:
        super().__init__(split, indices, mean, std)
        self.augmentation = augmentation

    def samples(self, keys: list[tuple[int, int]]) -> tuple[Tensor, Tensor]:
        options, epoch = self.augmentation, (self.augmentation.seed, keys[0][0], len(self.split))
        chosen = self.indices[[index for _, index in keys]]  # draws go by the index in the whole split
        frames = len(self.split.shape) == 4
        reach = options.roll if frames else options.padding
        shift, mirror = draw(*epoch, reach)
        shift, mirror = shift[:, chosen], mirror[chosen] & options.flip
        if frames:
            return chosen, roll_and_flip(self.split.read(chosen), shift - reach, mirror, options.axis)
        if reach and isinstance(self.split, RandomViews):
            views = self.split.read_random(chosen, draw_seeds(VIEW, *epoch)[chosen].tolist())
            images = flip(views, mirror, options.axis)
        elif isinstance(self.split, RandomViews):
            images = flip(self.split.read(chosen), mirror, options.axis)
        else:
            images = crop_and_flip(self.split.read(chosen), shift, mirror, reach, options.axis)
        if options.policy:
            images = auto_augment(images, draw_seeds(POLICY, *epoch)[chosen].tolist())
        if options.hole:
            images = cut_out(images, draw_seeds(HOLE, *epoch)[chosen], options.hole)
        return chosen, images


@lru_cache(maxsize=2)
def draw(seed: int, epoch: int, length: int, padding: int) -> tuple[Tensor, Tensor]:
    """What happens to each of `length` samples in one epoch: shift int64 (2, N) in 0..2 padding, mirror bool (N,)."""
    rng = np.random.default_rng((SHIFT, seed, epoch))
    mirror = rng.random(length) < 0.5
    return torch.from_numpy(rng.integers(0, 2 * padding + 1, (2, length))), torch.from_numpy(mirror)


@lru_cache(maxsize=4)
def draw_seeds(stream: int, seed: int, epoch: int, length: int) -> Tensor:
    """A seed for each of `length` samples in one epoch, int64 (N,), 0 to 2^62 - 1."""
    return torch.from_numpy(np.random.default_rng((stream, seed, epoch)).integers(0, 2**62, length))


@contextmanager
def drawing_from_torch() -> Iterator[Any]:
    """torchvision draws from PyTorch's global generator: yields what seeds it, and restores it at the end."""
    with torch.random.fork_rng(devices=[]):
        yield torch.default_generator.manual_seed


def flip(samples: Tensor, mirror: Tensor, axis: int = -1) -> Tensor:
    """Reverse `axis` of those of (B, ..., H, W) where `mirror` (B,) is true."""
    return torch.where(mirror.view(-1, *[1] * (samples.ndim - 1)), samples.flip(axis), samples)


def crop_and_flip(images: Tensor, shift: Tensor, mirror: Tensor, padding: int, axis: int = -1) -> Tensor:
    """(B, C, H, W): pad with black, cut out H x W at `shift` (2, B) = (top, left), mirror where `mirror` (B,).

    Does to the whole batch what torchvision's pad, crop and horizontal_flip do to one image.
    """
    height, width = images.shape[-2:]
    windows = F.pad(images, [padding] * 4).unfold(2, height, 1).unfold(3, width, 1)  # (B, C, 2p+1, 2p+1, H, W), a view
    cropped = windows[torch.arange(len(images)), :, shift[0], shift[1]]  # (B, C, H, W)
    return flip(cropped, mirror, axis)


def roll_and_flip(frames: Tensor, shift: Tensor, mirror: Tensor, axis: int = -1) -> Tensor:
    """(B, T, C, H, W): roll each by `shift` (2, B) = (down, right), then reverse `axis` where `mirror` (B,)."""
    height, width = frames.shape[-2:]
    lines = [(torch.arange(n) - by[:, None]) % n for n, by in zip((height, width), shift, strict=True)]
    lines[axis] = torch.where(mirror[:, None], lines[axis].flip(1), lines[axis])
    rows, columns = lines  # (B, H), (B, W)
    source = (rows[:, :, None] * width + columns[:, None, :]).flatten(1)  # (B, H * W), the same in all frames
    flat = frames.flatten(3).flatten(1, 2)  # (B, T * C, H * W)
    return flat.gather(2, source[:, None].expand(flat.shape)).view(frames.shape)


def auto_augment(images: Tensor, seeds: Sequence[int]) -> Tensor:
    """torchvision's AutoAugment, policy CIFAR-10, of each of (B, C, H, W), uint8, drawn from its seed."""
    policy = AutoAugment(AutoAugmentPolicy.CIFAR10, fill=GREY)
    with drawing_from_torch() as reseed:
        return torch.stack([(reseed(seed), policy(image))[1] for image, seed in zip(images, seeds, strict=True)])


def cut_out(images: Tensor, seeds: Tensor, side: int) -> Tensor:
    """Blacken a square of each of (B, C, H, W): its centre is anywhere within, so part of it may lie outside."""
    height, width = images.shape[-2:]
    centre = seeds % height, seeds // height % width  # the remainders of 2^62 by a few hundred are even
    rows, columns = (
        (torch.arange(length) - c[:, None] + side // 2).ge(0) & (torch.arange(length) - c[:, None] + side // 2).lt(side)
        for length, c in zip((height, width), centre, strict=True)
    )  # (B, H), (B, W)
    return images.masked_fill(rows[:, None, :, None] & columns[:, None, None, :], 0)
