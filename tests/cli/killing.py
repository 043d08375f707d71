"""Runs `spikeback` in forked children, which need no imports of their own, and kills them with SIGKILL.

python killing.py '{"words": [...], "out": FOLDER, ...}' ...    any number of runs, each with one of these or none
    "kills": 5, "seed": 0, "longest": 0.5                   at random moments
    "moments": [["write", "last.ckpt"], ...]                in the midst of these, one child for each

Every child resumes what the one before left; the last is left alone. Prints for every run what the children print, then
how many were killed. `longest` is a part of the time that the last child of the first run took.
"""

import json
import os
import random
import signal
import sys
import time
from collections.abc import Callable
from io import FileIO
from pathlib import Path
from typing import Any

from spikeback import files
from spikeback.cli import live
from spikeback.cli.main import main


def fork(words: list[str], prepare: Callable[[], None] = lambda: None) -> int:
    """Start `spikeback WORDS`; returns the process."""
    sys.stdout.flush()
    if process := os.fork():
        return process
    code = 1
    try:
        prepare()
        main(words)
        code = 0
    except SystemExit as leaving:
        code = int(leaving.code or 0)
    finally:
        sys.stdout.flush()
        os._exit(code)


def ended(process: int) -> bool:
    """Wait for the end: True if it was killed, False if it came to its end."""
    status = os.waitpid(process, 0)[1]
    assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0
    return os.WIFSIGNALED(status)


def killing_at(moment: str, name: str) -> Callable[[], None]:
    """A preparation after which the process dies with half of a file written, or before a file gets its name."""
    die = lambda: os.kill(os.getpid(), signal.SIGKILL)
    write, replace = files._write, Path.replace  # pyright: ignore[reportPrivateUsage]

    def half(file: FileIO, data: bytes) -> None:
        if Path(str(file.name)).name.startswith(f".{name}."):
            file.write(data[: len(data) // 2])
            die()
        write(file, data)

    def not_yet(path: Path, target: Any) -> Path:
        return die() if Path(target).name == name else replace(path, target)  # pyright: ignore

    def prepare() -> None:
        if moment == "write":
            files._write = half  # pyright: ignore[reportPrivateUsage]
        else:
            Path.replace = not_yet  # pyright: ignore[reportAttributeAccessIssue]

    return prepare


def happened(out: Path) -> int:
    """Events of all trials so far."""
    return sum(len(log.read_bytes().splitlines()) for log in out.glob("*/events.jsonl"))


def kill_at_random(words: list[str], out: Path, kills: int, seed: int, longest: float) -> int:
    """Kill after one to three events and up to `longest` seconds; returns how many were killed before their end."""
    rng, killed = random.Random(seed), 0
    for _ in range(kills):
        process, goal = fork(words), happened(out) + rng.randint(1, 3)
        while happened(out) < goal and os.waitid(os.P_PID, process, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
            time.sleep(0.002)
        time.sleep(rng.uniform(0, longest))
        os.kill(process, signal.SIGKILL)
        killed += ended(process)
    return killed


def run(words: list[str], out: str, kills: int = 0, seed: int = 0, longest: float = 0, moments: Any = ()) -> float:
    """One run; returns the seconds that its last child took. `longest` is in seconds here."""
    words = [*words, "--out", out, "--resume"]
    killed = kill_at_random(words, Path(out), kills, seed, longest)
    for moment, name in moments:
        assert ended(fork(words, killing_at(moment, name))), f"never came to {moment} {name}"
        killed += 1
    started = time.monotonic()
    assert not ended(fork(words))
    print(json.dumps({"killed": killed}))
    return time.monotonic() - started


if __name__ == "__main__":
    live.save_plots = lambda results, folder: []  # drawing takes longer than all the rest
    live.write_report = lambda results, path: files.write_atomic(path, b"report")
    first, *others = map(json.loads, sys.argv[1:])
    seconds = run(**first)
    for options in others:
        run(**options | {"longest": options.get("longest", 0) * seconds})
