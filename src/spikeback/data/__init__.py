"""Pictures to batches: sources, splits, augmentation and the Lightning data module."""

from spikeback.data.config import SOURCES, DataConfig, EventConfig
from spikeback.data.events import read_events, to_frames
from spikeback.data.load import load
from spikeback.data.module import DataModule
from spikeback.data.pictures import DataSet, Pictures, PictureSet, Split
from spikeback.data.sets.folder import read_pictures
from spikeback.data.split import hold_out, split_hash

__all__ = [
    "SOURCES",
    "DataConfig",
    "DataModule",
    "DataSet",
    "EventConfig",
    "PictureSet",
    "Pictures",
    "Split",
    "hold_out",
    "load",
    "read_events",
    "read_pictures",
    "split_hash",
    "to_frames",
]
