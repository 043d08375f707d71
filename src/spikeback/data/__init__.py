"""Pictures to batches: sources, splits, augmentation and the Lightning data module."""

from spikeback.data.folder import read_pictures
from spikeback.data.load import SOURCES, load
from spikeback.data.module import DataConfig, DataModule
from spikeback.data.pictures import Pictures, PictureSet
from spikeback.data.split import hold_out, split_hash

__all__ = [
    "SOURCES",
    "DataConfig",
    "DataModule",
    "PictureSet",
    "Pictures",
    "hold_out",
    "load",
    "read_pictures",
    "split_hash",
]
