"""Where a result was made: versions, commit, hardware."""

import platform
import subprocess
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from spikeback.errors import UsageError
from spikeback.version import __version__


def environment(precision: str, processes: int = 1) -> dict[str, Any]:
    """The `environment` object of results.json."""
    return {
        "spikeback": __version__,
        **{name: version(name) for name in ("torch", "torchvision", "lightning", "numpy", "pillow")},
        "python": platform.python_version(),
        "commit": _commit(),
        "platform": platform.platform(),
        "processor": _processor(),
        "threads": torch.get_num_threads(),
        "accelerator": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "precision": precision,
        **({"processes": processes} if processes > 1 else {}),
    }


def resolve_precision(precision: str, device: str | None = None) -> str:
    """What "auto" means on a device ("cpu" or "cuda", by default a GPU if there is one): bf16-mixed where it computes
    in bfloat16, else 32-true.
    """
    if precision == "16-mixed" and not torch.cuda.is_available():
        raise UsageError("train.precision: 16-mixed needs a GPU; choose from auto, 32-true, bf16-mixed")
    if precision != "auto":
        return precision
    if device == "cuda" or (device is None and torch.cuda.is_available()):
        return "bf16-mixed" if torch.cuda.is_bf16_supported() else "32-true"
    instructions = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")  # not in PyTorch for every processor
    native = any(getattr(torch.cpu, name, bool)() for name in instructions)
    return "bf16-mixed" if native else "32-true"


def _commit() -> str | None:
    """Commit of the checkout the package runs from, if it is one; "-dirty" if the package differs from it."""
    here = Path(__file__).resolve().parents[1]

    def git(*args: str) -> str:
        command = ["git", "-C", here, *args]
        return subprocess.run(command, capture_output=True, encoding="utf-8", timeout=5, check=True).stdout

    try:
        if not git("ls-files", "__init__.py"):
            return None
        return git("rev-parse", "HEAD").strip() + ("-dirty" if git("status", "--porcelain", ".") else "")
    except (OSError, subprocess.SubprocessError):
        return None


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    if info.is_file():
        lines = info.read_text("utf-8", "replace").splitlines()
        names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
        if names:
            return names[0]
    return platform.processor() or platform.machine()
