"""Pure tensor functions: surrogate derivatives, the leaky integrate-and-fire recursion, memory. No `nn.Module` here."""

from spikeback.ops import surrogate
from spikeback.ops.allocator import tune_allocator
from spikeback.ops.lif import lif
from spikeback.ops.packing import packed_spikes

__all__ = ["lif", "packed_spikes", "surrogate", "tune_allocator"]
