"""results.json (docs/results.md): opened, read, and written anew after every trial."""

import json
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from spikeback.errors import UsageError
from spikeback.files import read_text, write_atomic
from spikeback.train.recipe import FORMER, Recipe, renamed
from spikeback.values import json_ready

SCHEMA = 1
FIELDS = ("title", "command", "seconds", "planned", "config", "dataset", "regime", "environment", "trials")
TRIAL_FIELDS = ("method", "schedule", "seed", "last_accuracy", "best_accuracy", "best_on", "history", "gradients")
# Options that two runs of one recipe may differ in: the samples themselves are compared by hash, and any number of
# processes makes the same step of a batch.
HARMLESS = ("title", "data.root", "data.cache", "data.download", "data.num_workers", "train.devices", "train.nodes",
            "import")  # fmt: skip


def read_results(path: Path) -> dict[str, Any]:
    """results.json as a dictionary. Raises UsageError if there is none, or it is not what this version writes."""
    if not path.is_file():
        raise UsageError(f"no {path.resolve()}: name the folder of a run, e.g. runs/demo")
    try:
        results = json.loads(read_text(path))
    except ValueError as error:  # not JSON, or not even text
        raise UsageError(f"{path} is not JSON: {error}") from error
    if not isinstance(results, dict) or results.get("schema") != SCHEMA:
        raise UsageError(f"{path} does not hold results of schema {SCHEMA}, which is the one this version reads")
    missing = [name for name in FIELDS if name not in results]
    missing += [f"trials.{name}" for name in TRIAL_FIELDS for t in results.get("trials", []) if name not in t]
    if missing:
        raise UsageError(f"{path} lacks {', '.join(dict.fromkeys(missing))}: not written by spikeback, or damaged")
    return results


def write_results(results: dict[str, Any], path: Path) -> None:
    """Write results.json whole or not at all; a number that is not finite becomes null."""
    text = json.dumps(json_ready(results), indent=1, allow_nan=False)
    # No string holds a line break, so this is never within one: a list of numbers takes one line, not one a number.
    text = re.sub(r'\[\n([^][{}"]*)\n *\]', lambda numbers: f"[{' '.join(numbers[1].split())}]", text)
    write_atomic(path, text.encode())


def check_resumable(
    results: dict[str, Any], recipe: Recipe, dataset: dict[str, Any], environment: dict[str, Any], folder: Path
) -> None:
    """Raise UsageError unless trials of this recipe can join `results`; note another environment in them."""
    check_recipe(results["config"], recipe, folder)
    if (before := _as_now(results)) != dataset:
        options = {key: before["options"].get(key) for key in ("crop_padding", "mirror")}
        if before | {"options": before["options"] | dataset["options"]} == dataset:
            raise UsageError(f"resume: {folder} was made with other augmentation, {options}; name another out=...")
        raise UsageError(
            f"resume: {folder} was made with other images ({results['dataset']['name']}); name another out=..."
        )
    if environment != results["environment"]:
        now = datetime.now(UTC).isoformat(timespec="seconds")
        results.setdefault("resumed", []).append({"started": now, "environment": environment})


def _as_now(results: dict[str, Any]) -> dict[str, Any]:
    """The `dataset` object with what earlier versions did not write: how images were augmented."""
    dataset, config = results["dataset"], results["config"]["data"]
    if len(dataset["shape"]) == 4:
        return dataset
    former = {"crop_padding": config["crop_padding"], "mirror": None if config["flip"] is False else -1}
    return dataset | {"options": former | dataset["options"]}


def check_recipe(old: dict[str, Any], recipe: Recipe, path: Path) -> None:
    """Raise UsageError that names every option in which a recipe differs from that of `path`, but for harmless ones."""
    if differ := differing(old, recipe.as_dict()):
        config = (
            path if path.is_dir() else path.absolute().parents[1]
        ) / "config.yaml"  # of a trial's checkpoint, its run's
        own = f", or go on with that run by its own recipe, config={config}" if config.is_file() else ""
        raise UsageError(
            f"resume: {path} was made with another recipe, it differs in {', '.join(differ)}; name another out=... for "
            f"this one{own}"
        )


def differing(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    """The options in which two recipes differ, e.g. "train.lr", but for harmless ones."""
    before, now = filled(old), filled(new)
    return [k for k in sorted(before | now) if k not in HARMLESS and before.get(k) != now.get(k)]


def filled(config: Mapping[str, Any]) -> dict[str, Any]:
    """A recipe's options by dotted name; one that is missing did not exist yet, and is what was done without it."""
    return flat(Recipe().as_dict()) | flat({"train": FORMER}) | flat(renamed(config))


def flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested options by dotted name."""
    result: dict[str, Any] = {}
    for key, value in values.items():
        result |= flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
    return result
