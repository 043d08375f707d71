"""Spikes kept for the backward pass as one bit each."""

import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef

from spikeback.ops import native
from spikeback.ops.allocator import empty
from spikeback.ops.library import define, fake

DTYPES = (torch.float32, torch.bfloat16)


@define()
def pack(spikes: Tensor) -> Tensor:
    """Bits, (N / 8,) uint8, of a flat tensor of N spikes, N a multiple of 8; the first is the lowest bit."""
    size = spikes.numel() // 8
    if spikes.device.type == "cpu" and native.available():
        bits = empty((size,), spikes, dtype=torch.uint8)
        native.run("pack", spikes.numel(), spikes.dtype == torch.bfloat16, x=spikes, bits=bits, outer=size)
        return bits
    return (spikes.view(size, 8).to(torch.uint8) << _places(spikes)).sum(1, dtype=torch.uint8)


@fake(pack)
def _(spikes: Tensor) -> Tensor:
    return spikes.new_empty(spikes.numel() // 8, dtype=torch.uint8)


@define()
def unpack(bits: Tensor, dtype: torch.dtype) -> Tensor:
    """The inverse of `pack`: a flat tensor of spikes."""
    if bits.device.type == "cpu" and native.available():
        spikes = empty((8 * bits.numel(),), bits, dtype=dtype)
        native.run("unpack", spikes.numel(), dtype == torch.bfloat16, bits=bits, out=spikes, outer=bits.numel())
        return spikes
    return (bits[:, None] >> _places(bits) & 1).to(dtype).flatten()


@fake(unpack)
def _(bits: Tensor, dtype: torch.dtype) -> Tensor:
    return bits.new_empty(8 * bits.numel(), dtype=dtype)


def _places(like: Tensor) -> Tensor:
    return torch.arange(8, dtype=torch.uint8, device=like.device)


class Packed:
    """The spikes of one storage as bits; `flat()` gives them back, and only once while anybody uses them."""

    def __init__(self, spikes: Tensor) -> None:
        self.bits, self.dtype = pack(_flat(spikes)), spikes.dtype
        self.last: Any = lambda: None

    def flat(self) -> Tensor:
        spikes = self.last()
        if spikes is None:
            spikes = unpack(self.bits, self.dtype)
            self.last = weakref.ref(spikes)
        return spikes


class Packing:
    """The spike tensors of one forward pass, by storage, and what is kept of those that autograd asked for."""

    def __init__(self) -> None:
        self.known: dict[int, tuple[StorageWeakRef, int]] = {}  # the weak reference keeps the address from being reused
        self.packed: weakref.WeakValueDictionary[int, Packed] = weakref.WeakValueDictionary()  # as long as graphs live

    def add(self, spikes: Tensor) -> None:
        storage = spikes.untyped_storage()
        self.known = {key: entry for key, entry in self.known.items() if not entry[0].expired()}
        if spikes.dtype in DTYPES and storage.nbytes() // spikes.itemsize % 8 == 0:
            self.known[storage._cdata] = StorageWeakRef(storage), spikes._version
            self.packed.pop(storage._cdata, None)  # of a storage that is gone, whose address this one has

    def keep(self, tensor: Tensor) -> Any:
        """What autograd stores for a tensor: of spikes their bits and how to view them."""
        key = tensor.untyped_storage()._cdata
        if key not in self.known or self.known[key][1] != tensor._version:  # changed in place: no longer spikes
            return tensor
        packed = self.packed.get(key) or Packed(tensor)
        self.packed[key] = packed
        return packed, tensor.shape, tensor.stride(), tensor.storage_offset()

    @staticmethod
    def give(kept: Any) -> Tensor:
        """The tensor again."""
        if isinstance(kept, Tensor):
            return kept
        packed, *view = kept
        return packed.flat().as_strided(*view)


_packing: ContextVar[Packing | None] = ContextVar("packing", default=None)


@contextmanager
def packed_spikes() -> Iterator[None]:
    """Keep spikes as one bit each between the forward and the backward pass. This saves memory and costs a little time.

    Run the forward pass inside: `with sb.packed_spikes(): loss = ...`. It works for every layer that keeps spikes for
    the backward pass, on every device. Gradients are the same, bit for bit. Spikes are not packed if their number is no
    multiple of 8, or if they are in float16.
    """
    packing = Packing()
    token = _packing.set(packing)
    try:
        with torch.autograd.graph.saved_tensors_hooks(packing.keep, Packing.give):
            yield
    finally:
        _packing.reset(token)


def note_spikes(spikes: Tensor) -> Tensor:
    """The same tensor, known as one of spikes (0 or 1) to `packed_spikes`."""
    if (packing := _packing.get()) is not None:
        packing.add(spikes)
    return spikes


def _flat(tensor: Tensor) -> Tensor:
    """The whole storage of a tensor."""
    return tensor.detach().as_strided((tensor.untyped_storage().nbytes() // tensor.itemsize,), (1,), 0)
