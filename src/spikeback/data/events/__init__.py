"""Event cameras: recordings to events, events to frames, frames to animations."""

from spikeback.data.events.animate import animate
from spikeback.data.events.dtype import EVENT, Sensor
from spikeback.data.events.frames import to_frames
from spikeback.data.events.read import read_events

__all__ = ["EVENT", "Sensor", "animate", "read_events", "to_frames"]
