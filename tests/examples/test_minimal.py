"""The example: short, and it runs as it stands."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

EXAMPLE = Path(__file__).parents[2] / "examples" / "minimal.py"


def test_example_is_short() -> None:
    assert len(EXAMPLE.read_text().splitlines()) < 80


def test_example_prints_an_accuracy() -> None:
    words = ["--method", "evolutionary", "--epochs", "1", "--images", "128", "--model", "spiking_resnet20_he"]
    done = subprocess.run(
        [sys.executable, "-W", "error", str(EXAMPLE), *words],
        capture_output=True,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    assert re.search(r"^evolutionary: \d+\.\d% of the test images, [\d,]+ parameters$", done.stdout, re.MULTILINE)
