"""The environment of the other frameworks: which Python has them."""

import json
import os
import subprocess
from pathlib import Path

from spikeback.errors import UsageError
from spikeback.files import as_path
from spikeback.lab.bench.plans import PEERS
from spikeback.lab.bench.race import benchmarks

MAKE = "`make benchmarks/.venv/ready` makes one"
FIND = "import importlib.util as u, json, sys; print(json.dumps([n for n in sys.argv[1:] if not u.find_spec(n)]))"


def interpreter(path: str | None) -> Path | None:
    """The Python to run the peers with: `path`, else that of benchmarks/.venv; None if there is none.

    Raises:
        UsageError: a path that is no Python, one without PyTorch or without any peer, or no checkout around.
    """
    default = benchmarks() / ".venv/bin/python"
    if path is None:
        return default if default.exists() else None
    if not (benchmarks() / "peers").is_dir():
        raise UsageError("peers=... needs the folder benchmarks/ of a checkout of spikeback")
    python = Path(os.path.abspath(as_path(path)))  # noqa: PTH100 - not resolved: a link is what makes it a virtual environment
    try:
        done = subprocess.run([python, "-c", FIND, "torch", *PEERS], capture_output=True, encoding="utf-8", check=True)
        missing = json.loads(done.stdout)
    except (OSError, subprocess.SubprocessError, ValueError):
        raise UsageError(f"peers: {path} is no Python that runs; {MAKE}") from None
    if "torch" in missing or set(PEERS) <= set(missing):
        raise UsageError(f"peers: {path} has no {', '.join(missing)}; {MAKE}")
    return python
