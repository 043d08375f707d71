"""One bench from plan to results: green tests, the race, medians, comparisons; written as JSON and a plot."""

import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from spikeback.files import write_atomic
from spikeback.lab.bench import gate, plot
from spikeback.lab.bench.numbers import compare, median_interval, whole
from spikeback.lab.bench.plans import Plan
from spikeback.lab.bench.race import race
from spikeback.nn.why import sentence
from spikeback.train.environment import environment

Results = dict[str, Any]  # schema 1, docs/bench.md


def measure(
    bench: str, plan: Plan, options: dict[str, Any], command: str, precision: str, say: Callable[[str], object]
) -> Results:
    """Race the plan's arms for `repetitions` of the options, on `threads` of them and their `device`.

    Raises:
        TrainingError: the tests are not green.
    """
    started = datetime.now(UTC).isoformat(timespec="seconds")
    say("the tests first")
    checked = gate.green(options["device"])
    races = [race(arms, options["repetitions"], options["threads"], say, options["device"]) for arms in plan.races()]
    return {
        "schema": 1,
        "bench": bench,
        "title": plan.title,
        "command": command,
        "started": started,
        "options": options,
        "environment": environment(precision),
        "checked": checked,
        "axis": plan.axis,
        **evaluate(plan, [record for records in races for record in records]),
    }


def evaluate(plan: Plan, arms: list[dict[str, Any]]) -> Results:
    """Medians of all arms, comparisons, and notes."""
    for arm in arms:
        for key in ("seconds", "peak_bytes"):
            arm[f"{key}_median"], arm[f"{key}_interval"] = median_interval(arm[key]) if whole(arm) else (None, None)
    by_name = {arm["name"]: arm for arm in arms}
    comparisons = [entry for c in plan.comparisons if (entry := compare(c, by_name))]
    return {
        "arms": arms,
        "comparisons": comparisons,
        "notes": [*plan.notes, *same_networks(arms), *at_inference(arms), *unfused(arms)],
    }


def same_networks(arms: list[dict[str, Any]]) -> list[str]:
    """Whether every network has as many weights in its convolutions as ours, where races have different ones each."""
    notes = []
    for at in dict.fromkeys(arm["at"] for arm in arms):
        counts = {a["name"]: n for a in arms if a["at"] == at and (n := a.get("facts", {}).get("convolution_weights"))}
        if counts:
            expected = next((n for name, n in counts.items() if name.startswith("ours")), next(iter(counts.values())))
            others = [f"{name} ({n:,})" for name, n in counts.items() if n != expected]
            same = f"{expected:,} weights in the convolutions of every network"
            different = f"NOT THE SAME NETWORK: {expected:,} weights in our convolutions, but {', '.join(others)}"
            notes.append(different if others else same)
    return list(dict.fromkeys(notes))


def at_inference(arms: list[dict[str, Any]]) -> list[str]:
    """What the networks are without their branches, where that was counted."""
    notes = []
    for at in dict.fromkeys(arm["at"] for arm in arms):
        facts = [a["facts"] for a in arms if a["at"] == at and "macs_inference" in a.get("facts", {})]
        found = {(f["parameters_inference"], f["macs_inference"]) for f in facts}
        words = [f"{parameters:,} parameters, {macs:,} MACs an image" for parameters, macs in sorted(found)]
        if len(words) == 1:
            notes.append(f"ResNet-{at}, stripped: {words[0]}, whatever branches it had")
        elif words:
            notes.append(f"ResNet-{at}, NOT THE SAME WHEN STRIPPED: {'; '.join(words)}")
    return notes


def unfused(arms: list[dict[str, Any]]) -> list[str]:
    """Which arms of ours have places that run in PyTorch's operations, and why."""
    found = {arm["name"]: sentence(arm.get("facts", {}).get("unfused", {})) for arm in arms}
    return [f"{name}: {said}" for name, said in found.items() if said]


def write(results: Results, path: Path) -> list[Path]:
    """The results as JSON at `path`, and their plot beside it."""
    written = write_atomic(path, (json.dumps(results, indent=1) + "\n").encode())
    return [written, write_atomic(path.with_suffix(".png"), plot.png(results))]
