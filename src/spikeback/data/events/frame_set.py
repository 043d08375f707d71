"""Sets of event frames, memory-mapped."""

import hashlib
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from spikeback.data.events.dtype import Sensor
from spikeback.errors import UsageError


@dataclass(frozen=True, eq=False)
class Frames:
    """One split: those `rows`, int64 (N,), of `frames`, (M, T, 2, H, W), with `labels`, int64 (N,).

    Frames hold counts as uint8, saturated at 255; where resizing interpolates, counts are fractions, kept as float16.
    `rows` None takes all, in their order. `sums` are the sha256 of each of `frames`, uint8 (M, 32), 0 for one that was
    not made; None: all were. Pickled to a worker process, a memory map stays one.
    """

    frames: np.ndarray
    labels: Tensor
    rows: Tensor | None = None
    sums: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def shape(self) -> tuple[int, ...]:
        """(T, 2, H, W) of one sample."""
        return self.frames.shape[1:]

    def read(self, indices: Tensor) -> Tensor:
        """The samples at `indices`, int64 (B,): (B, T, 2, H, W), uint8, or float16 where resizing interpolated.

        Raises UsageError for a sample that was not made.
        """
        rows = (indices if self.rows is None else self.rows[indices]).numpy()
        if self.sums is not None and not (made := self.sums[rows].any(1)).all():
            raise UsageError(f"sample {indices[int(made.argmin())]} was left out when the others were made")
        return torch.from_numpy(np.asarray(self.frames[rows]))

    def part(self, rows: Tensor) -> "Frames":
        """Those `rows`, int64 (N,), of a split that takes all."""
        return Frames(self.frames, self.labels[rows], rows, self.sums)

    def checksums(self) -> bytes:
        """The sha256 of each sample, in order; 0 for one that was not made."""
        rows = np.arange(len(self)) if self.rows is None else self.rows.numpy()
        if self.sums is not None:
            return self.sums[rows].tobytes()
        return b"".join(hashlib.sha256(self.frames[row].tobytes()).digest() for row in rows)

    def __reduce__(self) -> tuple[Any, ...]:
        if isinstance(self.frames, np.memmap) and not isinstance(self.frames.base, np.ndarray):  # a whole file
            return _reopen, (self.frames.filename, self.labels, self.rows, self.sums)
        return Frames, (self.frames, self.labels, self.rows, self.sums)


@dataclass(frozen=True, eq=False)
class FrameSet:
    """A dataset of event frames: name, one line on its origin, classes in label order, both splits.

    `split` names how they were divided, `sensor` is (height, width) of the recordings before resizing, `manifest` the
    sha256 (hex) of the recordings' names in each split; None where a source has no such thing. `mirror` is the axis of
    a sample that mirroring the scene reverses, None where a mirrored recording may be of another class. `symmetric`,
    `held_out` and `notes` are those of images that were filmed (`ImageSet`).
    """

    name: str
    provenance: str
    classes: tuple[str, ...]
    train: Frames
    test: Frames
    split: str | None = None
    sensor: Sensor | None = None
    manifest: str | None = None
    mirror: int | None = None
    symmetric: bool = True
    held_out: Tensor | None = None
    notes: tuple[str, ...] = ()

    def hash(self) -> str:
        """sha256 (hex) over class names, and shape, checksum of each sample and labels of both splits."""
        digest = hashlib.sha256(repr(self.classes).encode())
        for split in (self.train, self.test):
            digest.update(repr((len(split), *split.shape)).encode())
            digest.update(split.checksums())
            digest.update(split.labels.numpy().astype("<i8").data)
        return digest.hexdigest()


def _reopen(path: str, labels: Tensor, rows: Tensor | None, sums: np.ndarray | None) -> Frames:
    return Frames(np.load(path, mmap_mode="r"), labels, rows, sums)
