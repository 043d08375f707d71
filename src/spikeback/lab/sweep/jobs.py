"""Several `spikeback` processes at a time.

No library's pool does this. The workers of concurrent.futures and joblib cannot be interrupted one by one. submitit's
local executor starts all jobs at once; when two running jobs were cancelled, it killed one of them before the job had
written its checkpoint. Here a training that is interrupted always has the time to write.
"""

import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from typing import Any

COMMAND = [sys.executable, "-m", "spikeback"]
WINDOWS = sys.platform == "win32"
OWN_GROUP: dict[str, Any] = (
    {"creationflags": getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0)} if WINDOWS else {"process_group": 0}
)
PATIENCE = 30  # seconds that an interrupted process has to leave


class Job:
    """A running `spikeback ...`, in a process group of its own: Ctrl-C reaches it through `interrupt` alone, once."""

    def __init__(self, name: str, words: list[str]) -> None:
        self.name = name
        self.errors = tempfile.TemporaryFile()  # noqa: SIM115 - closed by `close`
        self.process = subprocess.Popen(
            [*COMMAND, *words],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=self.errors, **OWN_GROUP,
        )  # fmt: skip

    def close(self) -> str | None:
        """Wait for the end; the last line that it had to say if it failed."""
        code = self.process.wait()
        self.errors.seek(0)
        lines = self.errors.read().decode(errors="replace").split("\n")
        self.errors.close()
        if code == 0:
            return None
        if code < 0:
            return f"killed by {signal.Signals(-code).name}"
        last = next((line.strip() for line in reversed(lines) if line.strip()), f"exit code {code}")
        return last.removeprefix("error: ")

    def interrupt(self) -> None:
        """End this process, which keeps what it has. (A process of a background job may ignore SIGINT.)"""
        if self.process.poll() is None:
            if WINDOWS:  # where terminate() gives it no time
                self.process.send_signal(getattr(signal, "CTRL_BREAK_EVENT", signal.SIGTERM))
            else:
                self.process.terminate()


def run_jobs(
    jobs: dict[str, list[str]],
    at_once: int,
    ended: Callable[[str, str | None], None],
    watch: Callable[[list[str]], None],
) -> None:
    """Run `spikeback WORDS` for every name, `at_once` at a time, in order.

    Args:
        jobs: name -> words.
        at_once: how many run at a time.
        ended: called with the name, and None or the error, as each ends.
        watch: called several times a second with the names of those that run.

    Any exception, Ctrl-C among them, interrupts those that run and waits for them.
    """
    waiting, running = list(jobs), []
    try:
        while waiting or running:
            while waiting and len(running) < at_once:
                running.append(Job(waiting[0], jobs[waiting.pop(0)]))
            for job in [job for job in running if job.process.poll() is not None]:
                running.remove(job)
                ended(job.name, job.close())
            watch([job.name for job in running])
            time.sleep(0.2)
    finally:
        for job in running:
            job.interrupt()
        for job in running:
            try:
                job.process.wait(PATIENCE)
            except subprocess.TimeoutExpired:
                job.process.kill()
            job.close()
