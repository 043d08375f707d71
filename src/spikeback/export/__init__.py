"""From a trained network to one that only infers."""

from spikeback.export.fold import fold

__all__ = ["fold"]
