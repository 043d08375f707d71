"""Which samples of every batch a rank takes."""

from dataclasses import dataclass

import numpy as np
from torch import Tensor


@dataclass(frozen=True)
class ProcessRank:
    """Rank `rank` of the `world_size` processes that train one network; `devices` of them run on this machine.

    Every optimiser step takes a batch of all ranks together, in `accumulate` micro-batches a rank.

    A process takes equal slices of every batch, so that all together take the samples that one would, step by step.
    """

    rank: int = 0
    world_size: int = 1
    accumulate: int = 1
    devices: int = 1

    def micro_batch(self, batch_size: int) -> int:
        """Samples of one rank in one forward pass, of a batch that divides."""
        return batch_size // (self.world_size * self.accumulate)

    def of_order(self, order: np.ndarray, batch_size: int) -> np.ndarray:
        """This rank's samples of an epoch: its own part of every micro-batch of each whole batch, in order."""
        whole = order[: len(order) // batch_size * batch_size]
        return whole.reshape(-1, self.world_size, self.micro_batch(batch_size))[:, self.rank].reshape(-1)

    def of_all(self, indices: Tensor) -> Tensor:
        """This process's samples of those that are judged: none twice, whether their number divides or not."""
        return indices[self.rank :: self.world_size]
