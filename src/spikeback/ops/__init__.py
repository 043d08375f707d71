"""Pure tensor functions: surrogate derivatives and the leaky integrate-and-fire recursion. No `nn.Module` here."""

from spikeback.ops import surrogate
from spikeback.ops.lif import lif

__all__ = ["lif", "surrogate"]
