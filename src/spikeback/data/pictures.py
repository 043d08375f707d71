"""What every source hands over: two splits of labelled pictures, held in memory as bytes."""

import hashlib
from dataclasses import dataclass

import torch
from torch import Tensor
from torchvision.transforms.v2.functional import center_crop, resize


@dataclass(frozen=True, eq=False)
class Pictures:
    """One split: `images`, uint8 (N, C, H, W), and `labels`, int64 (N,), the position in the set's `classes`."""

    images: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True, eq=False)
class PictureSet:
    """A dataset: its name, one line on where it came from, the class names in label order, and both splits."""

    name: str
    provenance: str
    classes: tuple[str, ...]
    train: Pictures
    test: Pictures

    def hash(self) -> str:
        """sha256 (hex) over shapes, pictures, labels and class names of both splits."""
        digest = hashlib.sha256(repr(self.classes).encode())
        for split in (self.train, self.test):
            digest.update(repr(tuple(split.images.shape)).encode())
            digest.update(split.images.contiguous().numpy().data)
            digest.update(split.labels.numpy().astype("<i8").data)
        return digest.hexdigest()


def fit(images: Tensor, height: int, width: int) -> Tensor:
    """Scale (..., C, h, w) until it just covers (height, width), antialiased, then crop the centre."""
    h, w = images.shape[-2:]
    if (h, w) == (height, width):
        return images
    scale = max(height / h, width / w)
    covering = [max(height, round(h * scale)), max(width, round(w * scale))]
    return center_crop(resize(images, covering, antialias=True), [height, width])


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
