"""Finished trials of many runs, pooled: same recipe, dataset and method, whatever folder or machine they come from.

What is "the same recipe" is `protocol`; `differences` says in a few words in which of its options two recipes differ.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from spikeback.data.config import EIGHTH, EventConfig
from spikeback.data.sets.source import Source, known
from spikeback.errors import UsageError
from spikeback.models.registry import own_width
from spikeback.report.tables import Results
from spikeback.train.results import HARMLESS, filled

# How a training was computed and watched, not what was trained.
COMPUTED = ("threads", "devices", "nodes", "deterministic", "packed_spikes", "probe", "doctor", "tensorboard")
NOT_PROTOCOL = (*HARMLESS, *(f"train.{option}" for option in COMPUTED))
NAMES = {
    "data.auto_augment": "AutoAugment",
    "data.batch_size": "batch",
    "data.crop_padding": "crop",
    "data.limit": "training samples",
    "branches.read": "branches read",
    "branches.schedule_by": "lambda by",
    "train.best_on": "best chosen on",
    "train.loss": "loss",
}
UNSET = {"data.limit": "all"}


@dataclass(frozen=True)
class Pool:
    """Trials that differ in nothing but their seed.

    Args:
        title: of the recipe.
        options: `protocol_of` the runs.
        dataset: the object of results.json (docs/results.md).
        method: as in results.json.
        trials: one a seed, by seed.
        files: the results.json that they come from.
    """

    title: str
    options: Mapping[str, Any]
    dataset: Mapping[str, Any]
    method: str
    trials: Sequence[Mapping[str, Any]]
    files: Sequence[str]

    @property
    def frames(self) -> bool:
        """Whether its samples are frames of events."""
        return len(self.dataset["shape"]) == 4

    @property
    def time_steps(self) -> int:
        """T: that of the frames, which bring their own."""
        return self.dataset["shape"][0] if self.frames else self.options["model.time_steps"]


def pool(found: Mapping[Path, Results]) -> list[Pool]:
    """The trials of all results by recipe, dataset hash and method, in order of first appearance.

    Raises:
        UsageError: two files hold a trial of one recipe, dataset, method and seed that ended differently.
    """
    pools: dict[Any, dict[int, tuple[Path, Mapping[str, Any]]]] = {}
    for path, results in found.items():
        options = protocol_of(results)
        for trial in results["trials"]:
            key = (repr(sorted(options.items())), results["dataset"]["hash"], trial["method"])
            before, same = pools.setdefault(key, {}).setdefault(trial["seed"], (path, trial))
            if _course(same) != _course(trial):
                raise UsageError(
                    f"{before} and {path} both hold {trial['method']}, seed {trial['seed']}, of one recipe and "
                    "dataset, and differ; name only folders that agree, or give one run other seeds"
                )
    return [_pooled(found, method, trials) for (_, _, method), trials in pools.items()]


def _course(trial: Mapping[str, Any]) -> dict[str, Any]:
    """All but how long it took."""
    return {key: value for key, value in trial.items() if key != "seconds_per_step"}


def _pooled(found: Mapping[Path, Results], method: str, trials: dict[int, tuple[Path, Mapping[str, Any]]]) -> Pool:
    files = list(dict.fromkeys(path for path, _ in trials.values()))
    first = found[files[0]]
    ordered = [trial for _, (_, trial) in sorted(trials.items())]
    return Pool(first["title"], protocol_of(first), first["dataset"], method, ordered, [str(path) for path in files])


def protocol(config: Mapping[str, Any]) -> dict[str, Any]:
    """The options of a recipe that decide its results, by dotted name, defaults filled in."""
    options = filled(config)
    source = known(options["data.name"]) or Source()
    acting = source.acting() if source.frames else ()
    idle = {o for o in options if o.startswith("data.events.") and o.removeprefix("data.events.") not in acting}
    idle |= {"model.time_steps"} if source.frames else set()
    options["model.width"] = options["model.width"] or own_width(options["model.name"])
    if options["data.flip"] is None:
        options["data.flip"] = bool(source.origin(EventConfig(source=options["data.events.source"])).flip)
    if "sensor" in acting:
        options["data.events.sensor"] = options["data.events.sensor"] or source.sensor
    if source.published:
        options["data.size"] = options["data.size"] or source.published.side
    if options["data.crop_padding"] is None and options["data.size"]:
        options["data.crop_padding"] = options["data.size"] // EIGHTH
    return {option: value for option, value in options.items() if option not in idle.union(NOT_PROTOCOL)}


def protocol_of(results: Results) -> dict[str, Any]:
    """`protocol` of the recipe of a run, and what its empty and automatic options came to."""
    dataset, options = results["dataset"], protocol(results["config"])
    became = {"data.size": dataset["shape"][-1], "train.precision": results["environment"]["precision"]}
    done = dataset["options"]
    if len(dataset["shape"]) == 4:  # frames of events
        became["data.split"] = dataset["split"]
    elif "crop_padding" in done:
        became["data.crop_padding"] = done["crop_padding"]
    else:  # of an earlier version, which mirrored images unless it was told not to
        became["data.flip"] = results["config"]["data"]["flip"] is not False
    if "mirror" in done:
        became["data.flip"] = done["mirror"] is not None
    return options | became


def differences(pool: Pool, recipe: Mapping[str, Any]) -> dict[str, str]:
    """What sets a pool apart from a recipe (`protocol`), by option: "epochs 5 (300)", the recipe's value in brackets.

    Dataset, network and T are left to the caller. An option that has no effect on the recipe's dataset has no bracket.
    """
    found = {}
    for option, value in pool.options.items():
        if option in ("data.name", "model.name", "model.time_steps"):
            continue
        if option not in recipe:
            found[option] = f"{_name(option)} {_value(option, value)}"
        elif value != recipe[option]:
            found[option] = f"{_name(option)} {_value(option, value)} ({_value(option, recipe[option])})"
    return found


def _name(option: str) -> str:
    return NAMES.get(option, option.rpartition(".")[2].replace("_", " "))


def _value(option: str, value: Any) -> str:
    if value is None:
        return UNSET.get(option, "default")
    if isinstance(value, bool):
        return "on" if value else "off"
    return (
        " ".join(map(str, value)) if isinstance(value, list) else f"{value:g}" if type(value) is float else str(value)
    )
