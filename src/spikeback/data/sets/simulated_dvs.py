"""Simulated DVS: an image moved on a closed path before an event camera that is computed (`pixel`), not built.

Every parameter is one of this simulation. The path, the speed and the contrast that CIFAR10-DVS was recorded with are
not published: what is trained on these events is not comparable with results on CIFAR10-DVS.
"""

from dataclasses import asdict, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from spikeback.data.events.cache import stamps
from spikeback.data.events.config import EventConfig
from spikeback.data.events.decode import FrameOptions, decode
from spikeback.data.events.frame_set import FrameSet
from spikeback.data.events.pixel import PixelModel
from spikeback.data.events.simulate import SENSOR, MotionPath, model_of, simulate
from spikeback.data.images import DataSet, Split
from spikeback.data.sets.imagenet import ImageFiles
from spikeback.data.sets.source import LoadOptions, Source, filmed
from spikeback.errors import UsageError

SIZE = 48  # pixels a side of the frames, as the paper resizes CIFAR10-DVS


class SimulatedDVS(Source):
    """Images of another dataset, filmed, see `simulated_dvs`."""

    name = "simulated-dvs"
    frames = True
    size = SIZE
    sensor = SENSOR
    events = ("sensor", "source", "preset", "seed")
    flip = None  # as its images

    def origin(self, events: EventConfig) -> Source:
        return filmed(events.source)

    def settled(self, events: EventConfig) -> EventConfig:
        return replace(events, sensor=_side(events.sensor))

    def open(self, root: Path | None, options: LoadOptions) -> FrameSet:
        events = options.events
        images = filmed(events.source).load(root, replace(options, size=None))
        return simulated_dvs(
            images,
            options.frames(self.size),
            events.preset,
            seed=events.seed,
            sensor=_side(events.sensor),
            root=root,
            only=options.only(images) if options.only else None,
        )


def _side(sensor: int | tuple[int, int] | None) -> int:
    """Height and width of the simulated sensor. Raises UsageError if they differ."""
    match sensor:
        case (int() as height, int() as width) if height == width:
            return height
        case int() | None:
            return sensor or SENSOR
    raise UsageError(f"data.events.sensor={list(sensor)} must be one number: the simulated sensor is square")


def simulated_dvs(
    images: DataSet,
    options: FrameOptions | None = None,
    preset: str | PixelModel = "clean",
    path: MotionPath | None = None,
    seed: int = 0,
    sensor: int = SENSOR,
    root: Path | None = None,
    only: Tensor | None = None,
) -> FrameSet:
    """Frames of all `images`, each recorded once by one simulated camera, see `simulate`; splits and labels are kept.

    `options` None: 10 frames of 48 x 48. The first call simulates, in parallel and with a progress bar, later calls
    open the cache: in `options.cache`, else beside the images' files in `root`, else in the user's cache folder.
    Of the training images those at `only`, int64 (N,), are recorded, None: all; the others cannot be read.
    Raises UsageError as `simulate` does, and for a cache that cannot be written.
    """
    options, model, path = options or FrameOptions(size=SIZE), model_of(preset), path or MotionPath()
    count = len(images.train)
    film = partial(_film, images=images, options=options, model=model, path=path, seed=seed, sensor=sensor)
    key = {"images": images.hash(), "model": asdict(model), "path": asdict(path), "seed": seed}
    if files := [stamp for part in (images.train, images.test) for stamp in _stamps(part)]:
        key["files"] = files
    labels, square = torch.cat([images.train.labels, images.test.labels]), (sensor, sensor)
    every = torch.arange(len(labels))
    rows = None if only is None else torch.cat([only, every[count:]])
    whole = decode("simulated-dvs", root, range(len(labels)), film, labels, square, options, key, rows=rows)
    kind = preset if isinstance(preset, str) else repr(preset)
    return FrameSet(
        f"simulated DVS of {images.name}",
        f"{images.provenance}; recorded by a simulated event camera ({kind}, {path}, seed {seed}), "
        "not comparable with results on CIFAR10-DVS",
        tuple(images.classes),
        whole.part(every[:count]),
        whole.part(every[count:]),
        getattr(images, "split", None),
        square,
        mirror=getattr(images, "mirror", -1),
        symmetric=getattr(images, "symmetric", True),
        held_out=getattr(images, "held_out", None),
        notes=getattr(images, "notes", ()),
    )


def _stamps(part: Split) -> list[tuple[str, int, int]]:
    """Name, size and time of the files that images are still to be decoded from: their set's hash knows no time."""
    if not isinstance(part, ImageFiles):
        return []
    return stamps(part.root, (part.path(index) for index in range(len(part))))


def _film(
    index: int, images: DataSet, options: FrameOptions, model: PixelModel, path: MotionPath, seed: int, sensor: int
) -> np.ndarray:
    """The frames of one image, (1, T, 2, H, W); those of the test split are numbered after the training images."""
    beyond = index - len(images.train)
    part, row = (images.train, index) if beyond < 0 else (images.test, beyond)
    events = simulate(part.read(torch.tensor([row]))[0], model, path, seed, sensor, recording=index)
    return options.sample(events, (sensor, sensor))[None]
