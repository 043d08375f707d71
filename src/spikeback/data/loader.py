"""The data loader of datasets that return whole batches."""

from collections.abc import Iterator
from typing import Any

from torch import Tensor
from torch.utils.data import DataLoader

from spikeback.errors import UsageError

Batch = tuple[Tensor, Tensor]


class Loader(DataLoader[Batch]):
    """Raises the UsageError that a worker met, e.g. a broken file, as it would be raised without workers."""

    def __iter__(self) -> Iterator[Any]:  # pyright: ignore[reportIncompatibleMethodOverride]
        for batch in super().__iter__():
            if isinstance(batch, UsageError):
                raise batch
            yield batch


def whole(batch: Any) -> Any:
    """The dataset returns whole batches: nothing is left to collate."""
    return batch
