"""Made-up records of arms, so that tables and plots need no measuring."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from spikeback.lab.bench import plans
from spikeback.lab.bench.measure import evaluate
from spikeback.lab.bench.plans import Machine, Plan

SIZES: dict[str, dict[str, Any]] = {
    "step": {"width": 8, "time_steps": 2, "batch": 2, "size": 16, "classes": 10},
    "lif": {"time_steps": 2, "batch": 2, "channels": 3, "size": 8},
    "convolution": {"width": 8, "time_steps": 2, "batch": 2, "size": 32},
    "memory": {"width": 8, "time_steps": [2, 4], "batch": 2, "size": 16, "classes": 10},
    "inference": {"width": 8, "time_steps": 2, "batch": [1, 2], "size": 16, "classes": 10},
    "branches": {"width": 8, "time_steps": 2, "batch": 2, "size": 16, "classes": 10},
    "scaling": {"width": 8, "time_steps": [1, 4, 16], "batch": [2, 4], "size": 16, "classes": 10},
}


@pytest.fixture(params=SIZES)
def bench(request: pytest.FixtureRequest) -> str:
    """The name of each bench."""
    return request.param


@pytest.fixture
def plan() -> Callable[..., Plan]:
    """plan("step"): a tiny plan of that bench, with bf16 and peers unless said otherwise."""

    def make(name: str, bf16: bool = True, peers: Path | None = Path("python"), device: str = "cpu") -> Plan:
        return getattr(plans, name)(Machine(bf16, peers, device), **SIZES[name])

    return make


@pytest.fixture
def made_up(plan: Callable[..., Plan]) -> Callable[..., dict[str, Any]]:
    """made_up("step"): results of that bench; the i-th arm takes i + 1 seconds and i + 1 MB, more every repetition."""

    def make(name: str, repetitions: int = 3) -> dict[str, Any]:
        shown = plan(name)
        records = []
        for i, arm in enumerate(shown.arms):
            described = {k: str(v) if isinstance(v, Path) else v for k, v in vars(arm).items()}
            drift = [1 + r / 10 for r in range(repetitions)]
            figures = {"seconds": [(i + 1) * d for d in drift], "peak_bytes": [int((i + 1) * 1e6)] * repetitions}
            facts = {"convolution_weights": 1234}
            if name == "branches":
                facts |= {"parameters_training": 1300 + i, "macs_training": 5_000_000 + i}
                facts |= {"parameters_inference": 1300, "macs_inference": 5_000_000}
            records.append(described | {"facts": facts} | figures)
        options = {"repetitions": repetitions, "threads": 2, "device": "cpu"}
        about = {"schema": 1, "bench": name, "title": shown.title, "options": options, "checked": "nothing"}
        return about | {"axis": shown.axis} | evaluate(shown, records)

    return make
