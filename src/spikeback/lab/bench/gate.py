"""No figure before the tests are green: a fast wrong result is none."""

import os
import subprocess
import sys
from importlib.util import find_spec

import torch

import spikeback as sb
from spikeback.errors import TrainingError
from spikeback.lab.bench.race import PACKAGE
from spikeback.ops.surrogate import Surrogate

TESTS = ("tests/ops", "tests/nn")  # parity of every fast operation with its reference
ON_GPU = "tests/gpu"


def green(device: str = "cpu") -> str:
    """What was checked, in words: the tests in a checkout, where there are none a check that comes with the package.

    Raises:
        TrainingError: something is not as the reference has it.
    """
    root, tests = PACKAGE.parent, (*TESTS, ON_GPU) if device == "cuda" else TESTS
    if not all((root / folder).is_dir() for folder in tests) or not find_spec("pytest"):
        return self_check(device)
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *tests],
        cwd=root, env=os.environ | {"PYTHONPATH": str(PACKAGE)},
        capture_output=True, encoding="utf-8", errors="replace",
    )  # fmt: skip
    lines = (done.stdout + done.stderr).strip().splitlines() or [f"pytest ended with {done.returncode}"]
    if done.returncode:
        first = next((line for line in lines if line.startswith(("FAILED", "ERROR"))), lines[-1])
        raise TrainingError(f"no figures: the tests are not green: {first}")
    return f"{' '.join(tests)}: {lines[-1]}"


def self_check(device: str = "cpu") -> str:
    """`sb.lif` as it is chosen for the device against the reference: same spikes, gradients within 4 ulp.

    Inputs are multiples of 1/64 and tau a power of two, so every membrane is exact and no rounding can excuse a spike.
    """
    generator = torch.Generator().manual_seed(0)
    current = torch.randint(-64, 128, (4, 3, 5, 6, 7), generator=generator) / 64
    current = current.to(device)
    grad = torch.randint(-64, 64, current.shape, generator=generator) / 64
    kinds = Surrogate.__subclasses__()
    for surrogate in (kind() for kind in kinds):
        outcomes = []
        for backend in (None, "reference"):
            x = current.clone().requires_grad_()
            spikes, _ = sb.lif(x, 0.25, 0.5, surrogate, backend=backend)
            spikes.backward(grad.to(device))
            outcomes.append((spikes, x.grad))
        (spikes, gradient), (expected, exact) = outcomes
        if not torch.equal(spikes, expected) or not torch.allclose(gradient, exact, rtol=5e-7, atol=1e-6):
            raise TrainingError(f"no figures: lif with {surrogate} is not what its reference is")
    return f"self-check: lif with {len(kinds)} surrogates equals its reference"
