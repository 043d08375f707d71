"""What only Linux has is taken away, one thing after the other, and a training still starts."""

import ctypes
import errno
import importlib.util
import mmap
import multiprocessing
import os
import pickle
import signal
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch

from spikeback.cli.main import main
from spikeback.data import DataConfig, DataModule
from spikeback.lab.sweep import jobs
from spikeback.ops import allocator
from spikeback.ops.native import build
from spikeback.processors import processors
from spikeback.train import TrainConfig
from spikeback.train.environment import environment, resolve_precision
from spikeback.train.processes import placement

Patch = pytest.MonkeyPatch


Take = Callable[[Patch], Any]


def without(owner: Any, *names: str) -> Take:
    return lambda patch: [patch.delattr(owner, name, raising=False) for name in names]


def without_module(*names: str) -> Take:
    """As on a system whose Python lacks these modules, of which copies of ours are made."""

    def take(patch: Patch) -> None:
        for name in names:
            patch.setitem(sys.modules, name, None)
        for name in ("lab.bench.worker", "data.events.cache", "data.events.parallel", "lock"):
            spec = importlib.util.find_spec(f"spikeback.{name}")
            assert spec is not None
            assert spec.loader is not None
            spec.loader.exec_module(importlib.util.module_from_spec(spec))

    return take


def without_proc(patch: Patch) -> None:
    is_file = Path.is_file
    patch.setattr(Path, "is_file", lambda path: not str(path).startswith("/proc") and is_file(path))


def untuned(patch: Patch) -> None:
    patch.setattr(allocator, "_pool", None)


def on_a_mac(patch: Patch) -> None:
    load = ctypes.CDLL
    patch.setattr(sys, "platform", "darwin")
    patch.setattr(ctypes, "CDLL", lambda name, *rest: load(name, *rest) if name else pytest.fail("there is no glibc"))


def together(*takes: Take) -> Take:
    return lambda patch: [take(patch) for take in takes]


LINUX_ONLY = {
    "affinity": without(os, "sched_getaffinity", "sched_setaffinity", "process_cpu_count"),
    "processes": together(
        without(os, "fork", "forkpty", "register_at_fork", "setsid", "killpg", "getpgid", "setpgid"),
        without(signal, "SIGHUP", "SIGALRM", "pthread_sigmask"),
        without_module("fcntl", "resource", "pwd", "grp", "termios"),
    ),
    "files": together(
        without_proc,
        without(errno, "EDQUOT"),
        without(os, "sync", "fdatasync", "getuid", "geteuid", "getloadavg", "uname", "O_DIRECTORY"),
    ),
    "addresses": together(untuned, without(os, "sysconf")),
    "huge pages": together(untuned, without(mmap, "MADV_HUGEPAGE")),
    "glibc, on a Mac": together(
        untuned, on_a_mac, without(torch.cpu, "_is_avx512_bf16_supported", "_is_amx_tile_supported")
    ),
}


@pytest.mark.parametrize("take", LINUX_ONLY.values(), ids=LINUX_ONLY)
@pytest.mark.slow
def test_training_starts_without(take: Take, monkeypatch: Patch, command: Any, tiny: list[str], tmp_path: Path) -> None:
    take(monkeypatch)
    short = ["--train.epochs", 1, "--data.limit", 32, "--train.precision", "auto", "--train.probe", 8]
    outcome = command("fit", *tiny, *short, "--out", tmp_path / "run")
    assert outcome.code == 0, outcome
    assert (tmp_path / "run" / "results.json").is_file()
    assert resolve_precision("auto") in ("bf16-mixed", "32-true")
    assert environment("32-true")["processor"]


def test_usable_processors_are_counted_in_one_place(monkeypatch: Patch) -> None:
    monkeypatch.setattr(os, "process_cpu_count", lambda: 3, raising=False)
    assert processors() == 3
    monkeypatch.delattr(os, "process_cpu_count")
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 5}, raising=False)
    assert processors() == 2
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: 7)
    assert processors() == 7
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert processors() == 1
    source = Path(__file__).parents[2] / "src"
    asked = [path.name for path in source.rglob("*.py") if "cpu_count" in path.read_text(encoding="utf-8")]
    assert asked == ["processors.py"]


def test_what_workers_load_can_be_sent_to_a_spawned_process() -> None:
    """As macOS and Windows start them: nothing is inherited, everything is pickled."""
    data = DataModule(DataConfig(size=8, limit=64, batch_size=32, num_workers=1, auto_augment=True), seed=0)
    data.setup()
    for loader in (data.train_dataloader(), data.val_dataloader(), data.test_dataloader()):
        pickle.loads(pickle.dumps((loader.dataset, loader.collate_fn)))
    assert multiprocessing.get_context("spawn")


def test_apples_gpu_is_left_alone() -> None:
    """Statistics are in double precision, which it has not."""
    assert placement(TrainConfig())["accelerator"] == ("cuda" if torch.cuda.is_available() else "cpu")


def test_kernels_are_not_built_on_windows(monkeypatch: Patch) -> None:
    monkeypatch.setattr(sys, "platform", "win32")
    with pytest.raises(OSError, match="not for Windows"):
        build.build()


def test_jobs_have_a_process_group_of_their_own_on_windows_too(monkeypatch: Patch) -> None:
    calls: list[Any] = []

    class Popen:
        def __init__(self, words: list[str], **options: Any) -> None:
            calls.append(options)

        def poll(self) -> None:
            return None

        def send_signal(self, number: int) -> None:
            calls.append(number)

    monkeypatch.setattr(sys, "platform", "win32")
    monkeypatch.setattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 512, raising=False)
    monkeypatch.setattr(signal, "CTRL_BREAK_EVENT", 1, raising=False)
    try:
        importlib.reload(jobs)
        monkeypatch.setattr(subprocess, "Popen", Popen)
        job = jobs.Job("a", ["fit"])
        job.interrupt()
        job.errors.close()
    finally:
        monkeypatch.undo()
        importlib.reload(jobs)
    assert calls[0]["creationflags"] == 512
    assert "process_group" not in calls[0]
    assert calls[1] == 1


def test_the_command_may_run_in_another_thread() -> None:
    """Only the main thread may listen to signals."""
    with ThreadPoolExecutor(1) as pool:
        failed = pool.submit(main, ["test", "nowhere"]).exception()
    assert isinstance(failed, SystemExit)
    assert failed.code == 2
