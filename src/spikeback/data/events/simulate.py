"""An event camera that is computed (`pixel`), not built: an image moves before it on a closed path."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from spikeback.data.events.dtype import EVENT
from spikeback.data.events.pixel import PRESETS, Crossings, PixelModel, check_numbers, comparator_levels, crossings
from spikeback.data.images import fit
from spikeback.errors import UsageError
from spikeback.values import instead

LUMA = (0.299, 0.587, 0.114)  # luminance of red, green and blue, Rec. 601
SENSOR = 128  # pixels a side of the sensor where nothing is said
LARGEST = 1024  # pixels in a row of the largest sensor
SENSOR_STREAM, NOISE_STREAM = 0, 1  # two independent random streams of a camera


@dataclass(frozen=True)
class MotionPath:
    """How the image moves: by x = a cos(turn), y = a sin(lobes * turn), turn = 2 pi loops t / duration.

    Args:
        duration: Seconds a recording lasts.
        amplitude: a, as a fraction of the sensor's side. The image is enlarged so that its border stays out of sight.
        loops: Times the path is run through; it ends where it began.
        lobes: 1 for a circle, 2 for a figure of eight.
        steps: Pieces of equal duration; within each, the level of a pixel changes at a constant rate.
    """

    duration: float = 1.28
    amplitude: float = 1 / 16
    loops: int = 1
    lobes: int = 1
    steps: int = 128

    def __post_init__(self) -> None:
        check_numbers(self)
        if not 0.001 <= self.duration <= 16:  # microseconds of 16 s are still exact in float32
            raise UsageError(f"MotionPath duration must be 0.001 to 16 seconds, not {self.duration}")
        if self.amplitude > 1:
            raise UsageError(f"MotionPath amplitude must be at most 1, the sensor's side, not {self.amplitude}")
        for name in ("loops", "lobes", "steps"):
            if (value := getattr(self, name)) < 1 or not isinstance(value, int):
                raise UsageError(f"MotionPath {name} must be a whole number from 1 on, not {value}")

    def shifts(self) -> np.ndarray:
        """Where the image is between the steps: (down, right) in sides of the sensor, float64 (steps + 1, 2)."""
        turn = 2 * np.pi * (np.arange(self.steps + 1) * self.loops % self.steps) / self.steps  # the end is the start
        return self.amplitude * np.stack([np.sin(self.lobes * turn), np.cos(turn)], 1)

    def times(self) -> np.ndarray:
        """When it is there, in microseconds, int64 (steps + 1,)."""
        return np.rint(np.linspace(0, self.duration * 1e6, self.steps + 1)).astype(np.int64)


def simulate(
    image: Tensor,
    preset: str | PixelModel = "clean",
    path: MotionPath | None = None,
    seed: int = 0,
    sensor: int = SENSOR,
    recording: int = 0,
) -> np.ndarray:
    """Record an image, uint8 (C, H, W) with C 1 (grey) or 3 (RGB), by an event camera of sensor x sensor pixels.

    `preset` is "clean", "noisy" or a PixelModel, `path` None is MotionPath(). `seed` names the camera, whose pixels'
    thresholds it decides; recordings by one camera differ in their noise, and `recording` numbers them.

    Returns EVENT (N,), in order of time; the same for the same arguments.

    Raises:
        UsageError: the preset is unknown, or the image, the sensor or a seed is out of range.
    """
    model, path = model_of(preset), path or MotionPath()
    if image.dtype != torch.uint8 or image.ndim != 3 or image.shape[0] not in (1, 3) or not image.numel():
        kind = f"{image.dtype} {tuple(image.shape)}"
        raise UsageError(f"an image to simulate must be uint8 (1, H, W) or (3, H, W), not {kind}")
    if not 1 <= sensor <= LARGEST:
        raise UsageError(f"the sensor must be 1 to {LARGEST} pixels wide, not {sensor}")
    if seed < 0 or recording < 0:
        raise UsageError(f"seed and recording must be at least 0, not {seed} and {recording}")
    thresholds, times = _thresholds(model, sensor, seed), path.times()
    levels = comparator_levels(moving_luminance(image, path, sensor), thresholds[0], times, model)
    noise = np.random.default_rng((NOISE_STREAM, seed, recording))
    return _events(crossings(levels, thresholds, times, model, noise), times, sensor)


def moving_luminance(image: Tensor, path: MotionPath, sensor: int) -> Iterator[np.ndarray]:
    """Yield what the sensor sees between the path's steps, steps + 1 times: luminance 0..255, float32 (S * S,).

    The shorter side of the image spans the sensor and the path. It is enlarged by bicubic interpolation (PyTorch's)
    at the very positions of the pixels; an image larger than that is scaled down first, antialiased.
    """
    grey = image.float() if len(image) == 1 else torch.tensordot(torch.tensor([LUMA]), image.float(), 1)
    canvas = sensor * (1 + 2 * path.amplitude)
    if min(image.shape[1:]) > canvas:
        grey = fit(grey, int(canvas), int(canvas))
    for rows, columns in zip(*_bicubic(path, sensor, *grey.shape[1:]), strict=True):
        yield (rows @ grey[0] @ columns.T).clamp_(0, 255).flatten().numpy()


@lru_cache(maxsize=4)
def _bicubic(path: MotionPath, sensor: int, height: int, width: int) -> tuple[Tensor, Tensor]:
    """Weights of an image's rows and columns in what the pixels see: float32 (K + 1, S, H) and (K + 1, S, W)."""
    scale = min(height, width) / (sensor * (1 + 2 * path.amplitude))  # image pixels for a sensor pixel
    pixel = torch.arange(sensor, dtype=torch.float64) + 0.5 - sensor / 2

    def weights(shift: Tensor, length: int) -> Tensor:
        position = 2 * scale / length * (pixel - sensor * shift[:, None])  # (K + 1, S), -1..1 along the image
        grid = torch.stack([torch.zeros_like(position), position], -1)[None]
        unit = torch.eye(length, dtype=torch.float64)[None, :, :, None]  # row h of channel h alone is bright
        sampled = F.grid_sample(unit, grid, "bicubic", "border", align_corners=False)  # (1, H, K + 1, S)
        return sampled[0].permute(1, 2, 0).float().contiguous()

    down, right = torch.from_numpy(path.shifts()).unbind(1)
    return weights(down, height), weights(right, width)


@lru_cache(maxsize=4)
def _thresholds(model: PixelModel, sensor: int, seed: int) -> np.ndarray:
    return model.draw_thresholds(sensor * sensor, np.random.default_rng((SENSOR_STREAM, seed)))


def model_of(preset: str | PixelModel) -> PixelModel:
    """A preset by name. Raises UsageError for one that is unknown."""
    if isinstance(preset, PixelModel):
        return preset
    if preset not in PRESETS:
        raise UsageError(f"no preset '{preset}' of the simulated camera{instead(preset, PRESETS)}")
    return PRESETS[preset]


def _events(steps: Iterable[Crossings], times: np.ndarray, sensor: int) -> np.ndarray:
    """The crossings one by one, EVENT (N,), in order of time."""
    parts = []
    for (pixel, rises, count, first, each), since, span in zip(steps, times[:-1], np.diff(times), strict=True):
        count = count.astype(np.int64)
        before = np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count)  # the pixel's events in this step
        time = span * (np.repeat(first, count) + before.astype(np.float32) * np.repeat(each, count))
        key = (since + time.astype(np.int64)) << 22 | np.repeat(pixel << 1 | rises, count)
        key.sort()  # of one integer an event: much faster than sorting records
        events = np.empty(len(key), EVENT)
        events["t"], events["p"] = key >> 22, key & 1
        events["y"], events["x"] = np.divmod((key >> 1 & 0x1FFFFF).astype(np.uint32), np.uint32(sensor))
        parts.append(events)
    return np.concatenate(parts)
