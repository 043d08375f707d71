"""What has to be known of networks of other makers: their hidden state, and where their time and samples are.

Known frameworks are recognised by the names of their classes: none of them is imported.
"""

from spikeback.foreign.layout import BATCH_FIRST, WORDS, Layout, Layouts
from spikeback.foreign.measure import measure_layouts
from spikeback.foreign.outputs import logits_of
from spikeback.foreign.state import (
    RESETS,
    first,
    loose_tensors,
    register_stateful,
    reset_state,
    warn_of_memory,
)

__all__ = [
    "BATCH_FIRST",
    "RESETS",
    "WORDS",
    "Layout",
    "Layouts",
    "first",
    "logits_of",
    "loose_tensors",
    "measure_layouts",
    "register_stateful",
    "reset_state",
    "warn_of_memory",
]
