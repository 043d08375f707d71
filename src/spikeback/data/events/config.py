"""How recordings of events become frames: the options behind `--data.events`."""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from spikeback.errors import UsageError
from spikeback.values import check_whole


@dataclass
class EventConfig:
    """How recordings of events become frames; images take no notice.

    Args:
        time_steps: T, frames of a recording.
        by: Frames of equal numbers of events, or of equal time.
        mode: A frame counts the events at each pixel, or says whether there was any.
        resize: How frames are scaled to --data.size.
        axes: Which way x and y of an AEDAT 2.0 file point, as in jAER or as in SpikingJelly.
        policy: At a cut off record or an event outside the sensor, and at time that goes back: raise an error, or warn,
            leave it out, and sort by time.
        start: Leave out what comes before so many microseconds after the first event of each recording.
        duration: Use so many microseconds of each recording, from there on; by time, they are divided into the frames.
        roll: Augmentation: shift all frames by up to so many pixels, round the edges; 0 switches it off.
        source: The images that simulated-dvs films: one of the sets of images.
        preset: The simulated sensor, without or with the noise of a real one.
        sensor: Pixels of the camera, [height, width] or one number for both. Empty: those that the files of recordings
            name, or that hold all their events; 128 of the simulated sensor.
        seed: Of the simulated sensor.
    """

    time_steps: int = 10
    by: Literal["count", "time"] = "count"
    mode: Literal["count", "binary"] = "count"
    resize: Literal["nearest", "bilinear", "area"] = "nearest"
    axes: Literal["jaer", "spikingjelly"] = "jaer"
    policy: Literal["raise", "warn"] = "raise"
    start: int | None = None
    duration: int | None = None
    roll: int = 5
    source: str = "embedded"
    preset: Literal["clean", "noisy"] = "clean"
    sensor: int | tuple[int, int] | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        at_least("data.events", self, {"time_steps": 1, "roll": 0, "start": 0, "duration": 1, "seed": 0})
        if isinstance(self.sensor, np.ndarray):
            self.sensor = self.sensor.tolist()
        if isinstance(self.sensor, list):  # from a file
            if len(self.sensor) != 2:
                raise UsageError(f"data.events.sensor={self.sensor} must be one number or [height, width]")
            self.sensor = (self.sensor[0], self.sensor[1])
        for side in (self.sensor,) if isinstance(self.sensor, int) else self.sensor or ():
            if side < 1:
                raise UsageError(f"data.events.sensor must be at least 1, not {side}")


def at_least(group: str, config: object, least: dict[str, int]) -> None:
    for option, bound in least.items():
        if (value := getattr(config, option)) is not None:
            check_whole(f"{group}.{option}", value, bound)
