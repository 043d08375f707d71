"""The process of one arm: sets up, warms up, then does one repetition for every line it reads.

`python -m spikeback.lab.bench.worker SPEC`, where SPEC is JSON: factory ("module:function"), options (its arguments),
small (those of a miniature), allocator ("kept" or "stock") and device ("cpu" or "cuda", where tensors are made by
default).
It answers in JSON lines: first {"facts": {...}} or {"absent": "why"}, then {"seconds", "peak_bytes"} a repetition.
Needs PyTorch alone, so that it runs in an environment of other packages too.
"""

import gc
import importlib
import json
import math
import os
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, TextIO

try:
    import resource
except ImportError:  # Windows
    resource = None

Work = Callable[[], Any]
WARM_UP = 2  # calls before the first repetition, and more while each takes less than half the time of the one before
LEAST = 0.2  # seconds a repetition lasts at least: quick work is called several times and divided


class Absent(Exception):
    """This arm cannot run here; the message says why."""


def main(spec: dict[str, Any], requests: TextIO, answers: TextIO) -> None:
    try:
        work, facts = _prepare(spec)
        base = facts.pop("base_bytes")
        calls = _calls(work)
    except (Absent, ImportError) as error:
        return _say(answers, {"absent": str(error)})
    hand_back()
    rest()
    _say(answers, {"facts": facts | {"calls": calls}})
    for _ in requests:
        peak = _peak_of(work) - base
        start = time.perf_counter()
        for _ in range(calls):
            work()
        synchronise()
        seconds = (time.perf_counter() - start) / calls
        hand_back()
        rest()
        _say(answers, {"seconds": seconds, "peak_bytes": peak})


def find(name: str) -> Any:
    """What "module:attribute" names."""
    module, _, attribute = name.partition(":")
    return getattr(importlib.import_module(module), attribute)


def _prepare(spec: dict[str, Any]) -> tuple[Work, dict[str, Any]]:
    import torch

    import spikeback

    facts = {"torch": torch.__version__, "allocator": "stock"}
    if spec["allocator"] == "kept" and (tune := getattr(spikeback, "tune_allocator", None)):
        tune()
        facts["allocator"] = "kept"
    factory, options = find(spec["factory"]), spec["options"]
    with torch.device(spec["device"]):
        if spec["device"] == "cuda":
            torch.cuda.init()
        if spec["small"]:  # brings in code and lazily imported modules, which are no part of a step's memory
            factory(**options | spec["small"])[0]()
        hand_back()
        base = torch.cuda.memory_allocated() if on_gpu() else _resident("VmRSS")
        work, more = factory(**options)
    return work, facts | more | {"base_bytes": base, "memory_counted": _counted()}


def on_gpu() -> bool:
    """Whether this process computes on a GPU."""
    import torch

    return torch.cuda.is_initialized()


def synchronise() -> None:
    """Wait for the GPU to finish, if there is one."""
    if on_gpu():
        import torch

        torch.cuda.synchronize()


def _calls(work: Work) -> int:
    seconds: list[float] = []
    while len(seconds) < WARM_UP or seconds[-1] < seconds[-2] / 2:
        start = time.perf_counter()
        work()
        synchronise()
        seconds.append(time.perf_counter() - start)
    return max(1, math.ceil(LEAST / max(seconds[-1], 1e-9)))


def _peak_of(work: Work) -> int:
    """Peak bytes over one call, which is not timed: it brings caches and memory back as well."""
    hand_back()
    if on_gpu():
        import torch

        torch.cuda.reset_peak_memory_stats()
        work()
        synchronise()
        return torch.cuda.max_memory_allocated()
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # resets VmHWM, see proc_pid_clear_refs(5)
    work()
    return _resident("VmHWM")


def hand_back() -> None:
    """Return free memory to the system and the GPU: the arms together need not fit into it."""
    gc.collect()
    if on_gpu():
        import torch

        torch.cuda.empty_cache()
    from spikeback.ops import allocator

    allocator.hand_back()


def rest(patience: float = 2.0) -> None:
    """Wait until this process uses no processor: OpenMP's threads spin for a while (0.1 s and more) after their work,
    which would slow down the arm that comes next.
    """
    end = time.monotonic() + patience
    while time.monotonic() < end:
        before = time.process_time()  # of all threads
        time.sleep(0.05)
        if time.process_time() - before < 0.002:
            return


def _resident(key: str) -> int:
    """VmRSS or VmHWM in bytes; where there is no /proc, the largest resident size since the start, 0 if unknown."""
    status = Path("/proc/self/status")
    if status.is_file():
        lines = dict(line.split(":", 1) for line in status.read_text("utf-8").splitlines())
        return 1024 * int(lines[key].split()[0])
    if resource is None:
        return 0
    unit = 1 if sys.platform == "darwin" else 1024
    return unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def _counted() -> str:
    """How peak memory is read here."""
    if on_gpu():
        return "torch.cuda.max_memory_allocated over a step"
    if not Path("/proc/self/status").is_file():
        return "ru_maxrss since the process began" if resource else "not counted on this system"
    return "VmHWM over a step" if os.access("/proc/self/clear_refs", os.W_OK) else "VmHWM since the process began"


def _say(answers: TextIO, message: dict[str, Any]) -> None:
    answers.write(json.dumps(message) + "\n")
    answers.flush()


if __name__ == "__main__":
    stream = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what libraries print goes to stderr
    # not the main of this copy, which runs as __main__: its Absent is another class than the one factories raise
    find("spikeback.lab.bench.worker:main")(json.loads(sys.argv[1]), sys.stdin, stream)
