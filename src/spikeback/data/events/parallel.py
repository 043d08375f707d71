"""Work on many recordings in several processes: results in order, memory bounded, a progress bar, one warning."""

import multiprocessing
import os
import signal
import threading
import warnings
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack
from typing import Any, TypeVar

import torch
from rich.console import Console
from rich.progress import Progress

from spikeback.errors import UsageError
from spikeback.processors import processors

Item = TypeVar("Item")
Result = TypeVar("Result")
CHUNK = 16  # items a process works on at a time
FEW = 64  # items up to which starting processes is not worth it
MOST = 61  # processes: what Windows can wait for
AHEAD = 4  # chunks for each process that may wait for the reader

_work: Callable[[Any], Any]  # what a worker process does, told once when it starts


def parallel(
    work: Callable[[Item], Result], items: Sequence[Item], title: str, workers: int | None = None
) -> Iterator[Result]:
    """Yield work(item) for all `items`, in their order, computed by `workers` processes; None: one for each core.

    `work` must be picklable where processes are spawned. Python warnings of all items come as a single one, counted.
    Raises the first error of `work` as it is, and UsageError if a process was killed.
    """
    chunks = [items[i : i + CHUNK] for i in range(0, len(items), CHUNK)]
    workers = min(workers or processors(), len(chunks), MOST)
    console = Console(stderr=True)
    progress = Progress(console=console, transient=True, disable=not console.is_terminal)
    said: list[str] = []
    with ExitStack() as stack:
        if workers <= 1 or len(items) <= FEW:
            done = (_run(work, chunk) for chunk in chunks)
        else:
            pool = ProcessPoolExecutor(workers, initializer=_start, initargs=(work,))
            stack.callback(pool.shutdown, wait=True, cancel_futures=True)  # after an error or Ctrl-C, start no more
            done = _windowed(pool, chunks, AHEAD * workers)
        stack.enter_context(progress)
        task = progress.add_task(title, total=len(items))
        for results, messages in done:
            said += messages
            yield from results
            progress.advance(task, len(results))
    if said:
        warnings.warn(f"{title}: {len(said)} warnings, the first: {said[0]}", stacklevel=2)


def _windowed(pool: ProcessPoolExecutor, chunks: Sequence[Any], ahead: int) -> Iterator[tuple[list[Any], list[str]]]:
    waiting: deque[Future[tuple[list[Any], list[str]]]] = deque()
    try:
        for chunk in chunks:
            waiting.append(pool.submit(_run_in_worker, chunk))
            if len(waiting) > ahead:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    except BrokenProcessPool:
        raise UsageError(
            "a worker process was killed, most likely for lack of memory; free some and start again"
        ) from None


def _run(work: Callable[[Any], Any], chunk: Sequence[Any]) -> tuple[list[Any], list[str]]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        results = [work(item) for item in chunk]
    return results, [str(warning.message) for warning in caught]


def _run_in_worker(chunk: Sequence[Any]) -> tuple[list[Any], list[str]]:
    return _run(_work, chunk)


def _start(work: Callable[[Any], Any]) -> None:
    global _work
    _work = work
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    torch.set_num_threads(1)  # the processes share the cores
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """A worker would wait for ever for a parent that was killed, and hold its lock on the cache."""
    if (parent := multiprocessing.parent_process()) is not None:
        parent.join()
        os._exit(1)
