"""Arms of a bench on a GPU: every kind of arm runs, is timed until the GPU has finished, and its memory is counted."""

from dataclasses import replace
from typing import Any

import pytest
import torch

from spikeback.lab.bench import gate, plans
from spikeback.lab.bench.race import race

pytestmark = [pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU"), pytest.mark.gpu]

SHAPE = {"width": 16, "time_steps": 2, "batch": 4, "size": 16, "classes": 5}


def raced(plan: plans.Plan, names: tuple[str, ...], **shape: int) -> list[dict[str, Any]]:
    arms = [arm for arm in plan.arms if arm.name.startswith(names)]
    records = race(arms, 2, 1, device="cuda")
    assert arms
    for record in records:
        assert len(record["seconds"]) == 2, record
    return records


def test_step() -> None:
    plan = plans.step(plans.Machine(bf16=True, peers=None, device="cuda"), **SHAPE)
    records = {r["name"]: r for r in raced(plan, ("ours", "floor", "ann", "plain", "shortcut"))}
    assert {"ours float32", "ours, compiled bf16", "floor bf16", "plain float32"} <= records.keys()
    for record in records.values():
        assert record["facts"]["memory_counted"].startswith("torch.cuda")
        assert record["peak_bytes"][0] > 4 * record["facts"]["convolution_weights"]  # the weights lie there


def test_time_is_that_of_the_gpu_not_of_the_launches() -> None:
    """A copy of 2 GB takes at least 0.2 ms on every GPU there is, its launch a hundredth of that."""
    plan = plans.lif(plans.Machine(bf16=False, peers=None, device="cuda"), 2, 2, 8, 8)
    (copy,) = (arm for arm in plan.arms if arm.name == "copy")
    (record,) = race([replace(copy, options={"size": 2**31})], 2, 1, device="cuda")
    assert min(record["seconds"]) > 2e-4


def test_lif_and_inference() -> None:
    machine = plans.Machine(bf16=True, peers=None, device="cuda")
    raced(plans.lif(machine, 2, 2, 8, 8), ("ours Triangle", "ours Tanh", "reference", "copy"))
    inference = plans.inference(machine, **SHAPE | {"batch": [2]})  # pyright: ignore[reportArgumentType]
    raced(inference, ("stripped", "folded", "plain"))


def test_self_check_passes_there() -> None:
    assert gate.self_check("cuda").startswith("self-check")
