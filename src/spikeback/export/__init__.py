"""From a trained network to one that only infers."""

from spikeback.export.fold import fold
from spikeback.export.formats import FORMATS, format_of, register

__all__ = ["FORMATS", "fold", "format_of", "register"]
