"""Run arms in turn: each in a process of its own, one at a time, the order rotating, so that drift hits all alike."""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import spikeback

PACKAGE = Path(spikeback.__file__).parents[1]  # the folder to import this very package from
SPINNING = (
    "OMP_WAIT_POLICY",
    "GOMP_SPINCOUNT",
)  # not inherited: an arm that never stops spinning slows the others down


@dataclass(frozen=True)
class Arm:
    """A named way of doing the work.

    `factory` is "module:function", called in the arm's process with `options`; it returns the work, a function without
    arguments, and facts about it. `small` are the options that make a miniature of it, run before memory is counted;
    without them the libraries' own memory counts too. `python` is the interpreter, None this one; a peer's finds
    `benchmarks/` too.
    `line` and `at` place the arm in a plot of lines: which line, and where on it.
    """

    name: str
    factory: str
    options: dict[str, Any]
    small: dict[str, Any] | None = None
    allocator: str = "kept"
    python: Path | None = None
    line: str | None = None
    at: int | None = None


class Process:
    """The process of one arm; a context manager that ends it."""

    def __init__(self, arm: Arm, threads: int, device: str) -> None:
        self.complaints = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the process
        spec = {key: getattr(arm, key) for key in ("factory", "options", "small", "allocator")} | {"device": device}
        paths = [PACKAGE, *([benchmarks()] if arm.python else [])]
        numbers = {"OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}
        self.process = subprocess.Popen(
            [arm.python or sys.executable, "-m", "spikeback.lab.bench.worker", json.dumps(spec)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.complaints,
            encoding="utf-8",
            env={key: value for key, value in os.environ.items() if key not in SPINNING}
            | numbers
            | {"PYTHONPATH": os.pathsep.join(map(str, paths))},
            start_new_session=True,  # Ctrl-C is the parent's, which ends its arms
        )

    def answer(self) -> dict[str, Any]:
        """The next line of the arm, or {"error": its last words} if it has ended."""
        assert self.process.stdout
        line = self.process.stdout.readline()
        return json.loads(line) if line else {"error": self._last_words()}

    def repetition(self) -> dict[str, Any]:
        """Ask for one repetition and wait for it."""
        assert self.process.stdin
        try:
            self.process.stdin.write("\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            return {"error": self._last_words()}
        return self.answer()

    def _last_words(self) -> str:
        code = self.process.wait()
        self.complaints.seek(0)
        lines = self.complaints.read().decode(errors="replace").strip().splitlines()
        return lines[-1].strip() if lines else f"ended with exit code {code}"

    def __enter__(self) -> "Process":
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()
        for stream in (self.process.stdin, self.process.stdout, self.complaints):
            with suppress(BrokenPipeError):
                stream.close()  # pyright: ignore[reportOptionalMemberAccess]


def race(
    arms: Sequence[Arm],
    repetitions: int,
    threads: int,
    say: Callable[[str], object] = lambda text: None,
    device: str = "cpu",
) -> list[dict[str, Any]]:
    """The records of all arms: `facts`, `seconds` and `peak_bytes` of every repetition, or `absent` or `error`.

    `say` is told what goes on. Whatever happens to an arm does not stop the others.
    """
    records: dict[str, dict[str, Any]] = {arm.name: {"seconds": [], "peak_bytes": []} for arm in arms}
    with ExitStack() as stack:
        live: dict[str, Process] = {}
        for arm in arms:  # one after the other, so that none warms up beside another
            say(f"{arm.name}: setting up")
            process = stack.enter_context(Process(arm, threads, device))
            records[arm.name] |= (answer := process.answer())
            if "facts" in answer:
                live[arm.name] = process
        for repetition in range(repetitions):
            for name in turn(list(live), repetition):
                say(f"repetition {repetition + 1} of {repetitions}: {name}")
                answer = live[name].repetition()
                if "error" in answer:
                    records[name] |= answer
                    del live[name]
                else:
                    for key, value in answer.items():
                        records[name][key].append(value)
    return [_described(arm) | records[arm.name] for arm in arms]


def turn(names: list[str], repetition: int) -> list[str]:
    """Who comes when: everyone once, another one first each time."""
    first = repetition % len(names) if names else 0
    return names[first:] + names[:first]


def benchmarks() -> Path:
    """The checkout's folder with the peers."""
    return PACKAGE.parent / "benchmarks"


def _described(arm: Arm) -> dict[str, Any]:
    """The arm's fields for JSON; a Python inside the working folder is named from there."""
    fields = dict(vars(arm))
    if arm.python is not None:
        inside = arm.python.is_relative_to(Path.cwd())
        fields["python"] = str(arm.python.relative_to(Path.cwd()) if inside else arm.python)
    return fields
