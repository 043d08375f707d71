"""Which part of every batch a process takes."""

from dataclasses import dataclass

import numpy as np
from torch import Tensor


@dataclass(frozen=True)
class Share:
    """Part `rank` of a batch that `processes` make together, each in `accumulate` pieces; `devices` of them are here.

    A process takes equal slices of every batch, so that all together take the samples that one would, step by step.
    """

    rank: int = 0
    processes: int = 1
    accumulate: int = 1
    devices: int = 1

    def piece(self, batch_size: int) -> int:
        """Samples that one process has at a time, of a batch that divides."""
        return batch_size // (self.processes * self.accumulate)

    def of_order(self, order: np.ndarray, batch_size: int) -> np.ndarray:
        """This process's samples of an epoch: of every piece of each whole batch its own, one after the other."""
        whole = order[: len(order) // batch_size * batch_size]
        return whole.reshape(-1, self.processes, self.piece(batch_size))[:, self.rank].reshape(-1)

    def of_all(self, indices: Tensor) -> Tensor:
        """This process's samples of those that are judged: none twice, whether their number divides or not."""
        return indices[self.rank :: self.processes]
