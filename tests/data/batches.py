"""Data modules to test, their batches, and recordings that no file holds."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from spikeback.data import DataConfig, DataModule, EventConfig

SMALL = DataConfig(batch_size=8, held_out=0.2, crop_padding=1, events=EventConfig(roll=2))


def made(image_set: Any, config: DataConfig = SMALL, seed: int = 0, use_all: bool = False) -> DataModule:
    module = DataModule(config, seed, image_set, use_all)
    module.setup()
    return module


def epoch(module: DataModule, number: int, loader: Any = None) -> list[tuple[Tensor, Tensor]]:
    loader = loader or module.train_dataloader()
    loader.sampler.set_epoch(number)
    return list(loader)


def same(one: list[tuple[Tensor, Tensor]], other: list[tuple[Tensor, Tensor]]) -> bool:
    pairs = zip(one, other, strict=True)
    return all(torch.equal(x, u) and torch.equal(y, v) for (x, y), (u, v) in pairs)


@dataclass(frozen=True)
class Recordings:
    """One split of frames in memory."""

    frames: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.frames.shape[1:])

    def read(self, indices: Tensor) -> Tensor:
        return self.frames[indices]


@dataclass(frozen=True)
class RecordingSet:
    train: Recordings
    test: Recordings
    name: str = "tiny frames"
    provenance: str = "made up"
    classes: tuple[str, ...] = ("a", "b")
    split: str = "by hand"
    manifest: str = "abc"
    mirror: int | None = -1

    def hash(self) -> str:
        return "123"
