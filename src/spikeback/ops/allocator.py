"""Memory that is kept from one training step to the next: the C library's heap, and a pool for large tensors."""

import ctypes
import math
import mmap
import os
import sys
import weakref
from bisect import bisect
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from threading import Lock

import torch
from torch import Tensor

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # glibc's malloc.h
MAP_NORESERVE = 0x4000  # Linux's mman.h
LARGE = 1 << 20  # bytes of a tensor that the pool is for


class Pool:
    """Blocks from a stretch of addresses of their own, each from the lowest gap that it fits into.

    An address becomes memory when it is first written to, in huge pages where the system has them, and stays with the
    process. In the heap small blocks that live long come to lie in the gaps that large ones leave, so that no large
    one fits there any more.

    Raises:
        OSError: the process may not have so many addresses.
        AttributeError: this system cannot reserve them.
    """

    def __init__(self) -> None:
        room = os.sysconf("SC_PHYS_PAGES") * mmap.PAGESIZE
        self.memory = mmap.mmap(-1, room, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | MAP_NORESERVE)
        with suppress(OSError, AttributeError):  # a system without, or a Python built on one
            self.memory.madvise(mmap.MADV_HUGEPAGE)
        self.gaps = [(0, room)]  # (start, end), by address; between two of them something is taken
        self.returned: deque[tuple[int, int]] = deque()  # blocks that nobody uses any more, not yet among the gaps
        self.lock = Lock()

    def take(self, size: int) -> memoryview | None:
        """A block of so many bytes, which comes back when nobody refers to it any more; None if there is none now."""
        # The lock may be another thread's, in a forked process even one's that is not there: nobody waits for it.
        if not self.lock.acquire(blocking=False):
            return None
        try:
            self._sort_in()
            length = -(-size // mmap.PAGESIZE) * mmap.PAGESIZE
            index = next((i for i, (start, end) in enumerate(self.gaps) if end - start >= length), None)
            if index is None:
                return None
            start, end = self.gaps[index]
            self.gaps[index : index + 1] = [(start + length, end)] if start + length < end else []
        finally:
            self.lock.release()
        block = memoryview(self.memory)[start : start + size]
        weakref.finalize(block, self.returned.append, (start, start + length)).atexit = False
        return block

    def hand_back(self) -> None:
        """Give the memory of all gaps to the system; not while another thread takes a block."""
        if not self.lock.acquire(blocking=False):
            return
        try:
            self._sort_in()
            for start, end in self.gaps:
                self.memory.madvise(mmap.MADV_DONTNEED, start, end - start)
        finally:
            self.lock.release()

    def _sort_in(self) -> None:
        """Make gaps of what was returned, joined to their neighbours."""
        while self.returned:
            start, end = self.returned.popleft()
            index = bisect(self.gaps, (start, end))
            if index < len(self.gaps) and self.gaps[index][0] == end:
                end = self.gaps.pop(index)[1]
            if index and self.gaps[index - 1][1] == start:
                start = self.gaps.pop(index - 1)[0]
                index -= 1
            self.gaps.insert(index, (start, end))


_pool: Pool | None = None


def tune_allocator() -> bool:
    """Keep freed memory for the next training step instead of giving it back to the system (Linux with glibc).

    Otherwise the system hands out the pages of every new tensor anew. On a CPU that costs more than the computation of
    many a layer. Large results of this package's kernels then come from a `Pool`. The caveat: the process stays as
    large as it ever was.

    Returns:
        Whether this system allows it.
    """
    global _pool
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform.startswith("linux") else None
    if mallopt is None or not (mallopt(M_MMAP_MAX, 0) and mallopt(M_TRIM_THRESHOLD, -1)):
        return False
    if _pool is None:
        with suppress(OSError, AttributeError):  # addresses are limited: then everything lies in the heap
            _pool = Pool()
    return True


def hand_back() -> None:
    """Give memory that is free now back to the system."""
    if _pool is not None:
        _pool.hand_back()
    if sys.platform.startswith("linux") and (trim := getattr(ctypes.CDLL(None), "malloc_trim", None)):
        trim(0)


def empty(shape: Sequence[int], like: Tensor, channels_last: bool = False, dtype: torch.dtype | None = None) -> Tensor:
    """An empty tensor (..., C, H, W), contiguous or channels-last; on the CPU a large one from the pool.

    It is nobody's view: only then does autograd add gradients in place. One from the pool cannot be resized.
    """
    dtype, order = dtype or like.dtype, [*range(len(shape))]
    if channels_last:
        order.append(order.pop(-3))
    if _pool is not None and type(like) is Tensor and like.device.type == "cpu":  # a subclass may be a fake
        size = math.prod(shape) * dtype.itemsize
        block = _pool.take(size) if size >= LARGE else None
        if block is not None:
            strides, step = [1] * len(shape), 1
            for axis in reversed(order):
                strides[axis] = step
                step *= shape[axis]
            storage = torch.frombuffer(block, dtype=torch.uint8).untyped_storage()
            return like.new_empty(0, dtype=dtype).set_(storage, 0, tuple(shape), tuple(strides))
    return torch.empty_permuted(tuple(shape), order, dtype=dtype, device=like.device)
