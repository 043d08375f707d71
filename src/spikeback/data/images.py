"""What every source hands over: two splits of labelled samples, read as bytes; and images held in memory."""

import hashlib
from dataclasses import dataclass, replace
from typing import Protocol

import torch
from torch import Tensor
from torchvision.transforms.v2.functional import center_crop, resize

Statistics = tuple[tuple[float, ...], tuple[float, ...]]


class Split(Protocol):
    """Labelled samples of any kind, in memory or not: images (C, H, W) or event frames (T, 2, H, W)."""

    @property
    def labels(self) -> Tensor:
        """int64 (N,), the position in the set's `classes`."""
        ...

    @property
    def shape(self) -> tuple[int, ...]:
        """Of one sample."""
        ...

    def __len__(self) -> int: ...

    def read(self, indices: Tensor) -> Tensor:
        """The samples that `indices`, int64 (B,), names: uint8 (B, *shape)."""
        ...


class DataSet(Protocol):
    """A dataset: its name, one line on where it came from, the class names in label order, and both splits.

    It may also have `split`, the name of the division into the two; `statistics`, the published mean and deviation of
    its channels; `mirror`, the axis that mirroring a sample reverses, None where that changes classes (without the
    attribute: -1 for images, None for frames); `symmetric`, False where nobody knows whether it does; `held_out`, the
    rows of `train` that are to be held out; and `notes`, what is worth telling.
    """

    @property
    def name(self) -> str: ...
    @property
    def provenance(self) -> str: ...
    @property
    def classes(self) -> tuple[str, ...]: ...
    @property
    def train(self) -> Split: ...
    @property
    def test(self) -> Split: ...
    def hash(self) -> str:
        """sha256 (hex) of what the samples are made from."""
        ...


@dataclass(frozen=True, eq=False)
class Images:
    """One split in memory: `images`, uint8 (N, C, H, W), and `labels`, int64 (N,)."""

    images: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def shape(self) -> tuple[int, ...]:
        """(C, H, W)."""
        return tuple(self.images.shape[1:])

    def read(self, indices: Tensor) -> Tensor:
        """A copy of the images that `indices` names."""
        return self.images[indices]


@dataclass(frozen=True, eq=False)
class ImageSet:
    """A dataset in memory. `statistics`: published mean and deviation by channel, on the scale 0..1, or None.

    `mirror`: the axis of (C, H, W) that mirroring reverses, None where a mirrored image may be of another class.
    `symmetric`: whether mirrored images are known to keep their class. `held_out`: the rows of `train` that are to be
    held out, None: they are drawn. `notes`: what is worth telling, a line each.
    """

    name: str
    provenance: str
    classes: tuple[str, ...]
    train: Images
    test: Images
    statistics: Statistics | None = None
    mirror: int | None = -1
    symmetric: bool = True
    held_out: Tensor | None = None
    notes: tuple[str, ...] = ()

    def hash(self) -> str:
        """sha256 (hex) over shapes, images, labels and class names of both splits."""
        digest = hashlib.sha256(repr(self.classes).encode())
        for split in (self.train, self.test):
            digest.update(repr(tuple(split.images.shape)).encode())
            digest.update(split.images.contiguous().numpy().data)
            digest.update(split.labels.numpy().astype("<i8").data)
        return digest.hexdigest()


def resized(images: ImageSet, size: int | None) -> ImageSet:
    """The same with images of size x size pixels; None: as they are."""
    if size is None or images.train.images.shape[-2:] == (size, size):
        return images
    train, test = (Images(fit(part.images, size, size), part.labels) for part in (images.train, images.test))
    provenance = f"{images.provenance}; resized to {size} x {size}"
    return replace(images, provenance=provenance, train=train, test=test)


def fit(images: Tensor, height: int, width: int) -> Tensor:
    """Scale (..., C, h, w) until it just covers (height, width), antialiased, then crop the centre."""
    h, w = images.shape[-2:]
    if (h, w) == (height, width):
        return images
    scale = max(height / h, width / w)
    covering = [max(height, round(h * scale)), max(width, round(w * scale))]
    return center_crop(resize(images, covering, antialias=True), [height, width])


def middle(image: Tensor, size: int) -> Tensor:
    """ImageNet's view for testing: scale the shorter side of (C, h, w) to size * 256 / 224, crop the centre."""
    return center_crop(resize(image, [round(size * 256 / 224)], antialias=True), [size, size])


def channel_statistics(images: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of uint8 (N, C, H, W) over N, H, W, on the scale 0..1: two float32 (C,).

    Exact, from the histogram of the 256 values. A channel that never varies gets a deviation of 1: it is only centred.
    """
    values = torch.arange(256, dtype=torch.float64) / 255
    counts = torch.stack([torch.bincount(c.flatten(), minlength=256) for c in images.unbind(1)]).double()  # (C, 256)
    share = counts / counts.sum(1, keepdim=True)
    mean = share @ values
    std = (share * (values - mean[:, None]).square()).sum(1).sqrt()
    return mean.float(), torch.where(std > 0, std, 1.0).float()


def normalise(images: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """uint8 (B, C, H, W) -> float32 (B, C, H, W): scaled to 0..1, then mean 0 and variance 1 per channel."""
    return (images / 255 - mean[:, None, None]) / std[:, None, None]


def as_input(samples: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """What a network takes, float32: images (B, C, H, W) normalised; frames (B, T, 2, H, W) as counts, time first."""
    if samples.ndim == 4:
        return normalise(samples, mean, std)
    return samples.transpose(0, 1).contiguous().float()  # (T, B, 2, H, W)
