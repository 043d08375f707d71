"""Pure tensor functions: surrogate derivatives, the leaky integrate-and-fire recursion, memory. No `nn.Module` here."""

from spikeback.ops import surrogate
from spikeback.ops.lif import lif
from spikeback.ops.memory import packed_spikes, tune_allocator

__all__ = ["lif", "packed_spikes", "surrogate", "tune_allocator"]
