"""The method: branches from intermediate blocks to the output, and the schedule of their weight."""

from spikeback.shortcut.adapt import TimeAveraged, Unrolled
from spikeback.shortcut.net import ShortcutNet
from spikeback.shortcut.schedule import Constant, Cosine, Evolutionary, Schedule, Shortcut, Vanilla

__all__ = [
    "Constant",
    "Cosine",
    "Evolutionary",
    "Schedule",
    "Shortcut",
    "ShortcutNet",
    "TimeAveraged",
    "Unrolled",
    "Vanilla",
]
