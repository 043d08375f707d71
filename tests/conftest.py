"""Fixtures shared by all tests: a fixed seed, and networks small enough to train in milliseconds."""

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import spikeback as sb

if not torch.cuda.is_available():  # before Lightning imports Triton: the kernels' tests need its interpreter then
    assert "triton" not in sys.modules, "import what imports Lightning where it is used, not above"
    os.environ.setdefault("TRITON_INTERPRET", "1")
torch.set_num_threads(1)  # networks this small only wait for a second thread


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with slow tests come first: none of them is left to one process at the end."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


@pytest.fixture
def make_net() -> Callable[..., Any]:
    """Makes a Spiking ResNet-18 of width 4, 5 classes, 2 time steps; every option of create_model may be given."""
    return partial(sb.create_model, "spiking_resnet18", num_classes=5, time_steps=2, width=4)


@pytest.fixture
def images() -> Tensor:
    return torch.randn(3, 3, 8, 8)  # (B, C, H, W)


@pytest.fixture
def live_net(make_net: Callable[..., Any], images: Tensor) -> Any:
    """The same network in eval mode, its running statistics those of the images, so that it does not stay silent."""
    net = make_net()
    for norm in (m for m in net.modules() if hasattr(m, "running_mean")):
        norm.momentum = 1.0
    with torch.no_grad():
        net(images)
    net.eval()
    assert net(images).std(1).min() > 0  # logits differ between images, so spikes reach the end
    return net


@dataclass(frozen=True)
class Outcome:
    """What one call of the command came to."""

    code: int
    out: str
    err: str


Command = Callable[..., Outcome]


@pytest.fixture
def command(capfd: pytest.CaptureFixture[str]) -> Command:
    """command("test", folder, ...): calls `spikeback` with these words."""

    def call(*words: object) -> Outcome:
        from spikeback.cli.main import main

        capfd.readouterr()
        code = 0
        try:
            main([str(word) for word in words])
        except SystemExit as leaving:
            code = int(leaving.code or 0)
        printed = capfd.readouterr()
        return Outcome(code, printed.out, printed.err)

    return call


@pytest.fixture
def refused(command: Command) -> Callable[..., str]:
    """refused(*words, code=2): the one line that the command answers a mistake with, `alone`: nothing else is said."""

    def call(*words: object, code: int = 2, alone: bool = False) -> str:
        outcome = command(*words)
        assert outcome.code == code, outcome
        assert outcome.err.startswith("error: ")
        assert len(outcome.err.splitlines()) == 1
        assert "Traceback" not in outcome.err + outcome.out
        assert not (alone and outcome.out)
        return outcome.err

    return call


PAIR = """
import os, runpy, sys
import spikeback  # once for both, it takes longer than what they do
other = os.fork()
_, file, folder = sys.argv
sys.argv[:] = [file, folder, str(int(other == 0))]
runpy.run_path(file, run_name="__main__")
if other:
    sys.exit(os.waitstatus_to_exitcode(os.waitpid(other, 0)[1]))
"""


@pytest.fixture(scope="session")
def two_processes() -> Callable[[str, Path], None]:
    """two_processes(file, folder): runs a test file as two programs, `file folder 0` and `file folder 1`."""

    def run(file: str, folder: Path) -> None:
        env = os.environ | {"OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
        command = [sys.executable, "-c", PAIR, file, str(folder)]
        done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr

    return run


@pytest.fixture(scope="session")
def row_results() -> Callable[..., dict[str, Any]]:
    """`row_results("cifar100/resnet18-t2", {"vanilla": [0.71, 0.72]}, **{"train.epochs": 5})`: results of this packaged
    recipe with options changed, one trial for every last accuracy; its best is 0.01 higher.
    """
    return make_row_results


def make_row_results(recipe: str, accuracies: dict[str, list[float]], **changed: Any) -> dict[str, Any]:
    from spikeback.cli.options import packaged_recipe
    from spikeback.data.sets.source import find

    config: Any = packaged_recipe(recipe).as_dict()
    for option, value in changed.items():
        *groups, last = option.split(".")
        group = config
        for name in groups:
            group = group[name]
        group[last] = value
    data = config["data"]
    source, side = find(data["name"]), data["size"] or 32
    frames, name = source.frames, source.title or source.name
    return {
        "schema": 1,
        "title": config["title"],
        "command": "spikeback compare",
        "seconds": 1.0,
        "planned": [],
        "config": config,
        "dataset": {
            "name": name,
            "provenance": f"made up, as {name}",
            "shape": [10, 2, side, side] if frames else [3, side, side],
            "hash": name.encode().hex() * 4,
            "split": data["split"],
            "options": {"mirror": -1} if frames else {},
        },
        "regime": {},
        "environment": {"precision": config["train"]["precision"].replace("auto", "32-true")},
        "trials": [
            {
                "method": method, "schedule": "", "seed": seed, "last_accuracy": last, "best_accuracy": last + 0.01,
                "best_on": "held-out", "history": {}, "gradients": {}, "seconds_per_step": 0.1,
            }
            for method, values in accuracies.items() for seed, last in enumerate(values)
        ],
    }  # fmt: skip
