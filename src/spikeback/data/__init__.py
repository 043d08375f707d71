"""Images to batches: sources, splits, augmentation and the Lightning data module."""

from spikeback.data.config import DataConfig
from spikeback.data.events import read_events, to_frames
from spikeback.data.events.config import EventConfig
from spikeback.data.images import DataSet, Images, ImageSet, Split
from spikeback.data.load import load
from spikeback.data.module import DataModule
from spikeback.data.sets.source import LoadOptions, Source, register, sources
from spikeback.data.split import hold_out, split_hash
from spikeback.data.unlabelled import read_images

__all__ = [
    "DataConfig",
    "DataModule",
    "DataSet",
    "EventConfig",
    "ImageSet",
    "Images",
    "LoadOptions",
    "Source",
    "Split",
    "hold_out",
    "load",
    "read_events",
    "read_images",
    "register",
    "sources",
    "split_hash",
    "to_frames",
]
