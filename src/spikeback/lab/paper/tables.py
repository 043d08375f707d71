"""The paper's Tables 1-4 beside what was measured here, as facts (docs/tables.md)."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from spikeback.data.sets.source import known, sources
from spikeback.lab.paper.measured import Pool, differences, protocol
from spikeback.lab.paper.rows import METHODS, captions, references, rows
from spikeback.report.tables import SCHEMA as RESULTS_SCHEMA
from spikeback.report.tables import summarise

SCHEMA = 1
NETWORKS = {"spiking_resnet18": "ResNet18", "spiking_resnet34": "ResNet34"}
ORDER = list(METHODS.values())

Facts = dict[str, Any]
Recipes = Mapping[str, Mapping[str, Any]]  # name -> `measured.protocol` of a packaged recipe


def recipe_name(dataset: str, network: str, time_steps: int) -> str:
    """The packaged recipe of a row, e.g. "cifar100/resnet18-t2"."""
    data = next(source.name for source in sources() if source.title == dataset)
    return f"{data}/{network.lower()}-t{time_steps}"


def own_recipes(tables: Iterable[int]) -> dict[str, list[str]]:
    """The recipes of the paper's own rows in these tables, as printed, and the methods that the rows ask for."""
    found: dict[str, list[str]] = {}
    for row in rows():
        if row.table in tables and row.method in METHODS and row.reading is None:
            methods = found.setdefault(recipe_name(row.dataset, row.network, row.time_steps), [])
            methods += [METHODS[row.method]] if METHODS[row.method] not in methods else []
    return {name: sorted(methods, key=ORDER.index) for name, methods in found.items()}


def table_facts(pools: Sequence[Pool], recipes: Recipes) -> Facts:
    """All tables and rows of the paper, what was measured beside and below them, and what has no place.

    A pool of a dataset of the paper stands beside the row of its network, T and method, or is `unlisted` if there is a
    recipe but no row. One of another dataset is `small`, below Table 1 (images) or 4 (frames of events), if there is
    a recipe for CIFAR-100 or CIFAR10-DVS with its network and T.
    """
    lines = sorted((line(pool, recipes) for pool in pools), key=_order)
    placed = [found for found in lines if found["recipe"]]
    elsewhere = [found for found in lines if not found["recipe"]]
    tables = []
    for number, caption in captions().items():
        printed = [{**asdict(row), "ours": []} for row in rows() if row.table == number]
        unlisted, small = [], []
        for found in placed:
            if found["dataset"] is None:
                small += [found] if number == (4 if found["frames"] else 1) else []
            elif row := _row_of(found, printed):
                row["ours"].append(found)
            elif not any(_row_of(found, [asdict(r)]) for r in rows()):
                unlisted += [found] if any(row["dataset"] == found["dataset"] for row in printed) else []
        tables.append({"table": number, "caption": caption, "rows": printed, "unlisted": unlisted, "small": small})
    works = {key: asdict(work) for key, work in references().items()}
    return {"schema": SCHEMA, "tables": tables, "elsewhere": elsewhere, "references": works, "to_run": []}


def measured(facts: Facts) -> bool:
    """Whether anything of ours stands beside a row."""
    return any(row["ours"] for table in facts["tables"] for row in table["rows"])


def line(pool: Pool, recipes: Recipes) -> dict[str, Any]:
    """A pool as a line of a table, compared with the recipe of its place.

    If no table has a place for its network, T or method, `recipe` is None and it is compared with the defaults.
    """
    source = known(pool.options["data.name"])
    dataset = source.title if source and source.title in {row.dataset for row in rows()} else None
    network = NETWORKS.get(pool.options["model.name"])
    home = dataset or ("CIFAR10-DVS" if pool.frames else "CIFAR-100")
    recipe = recipe_name(home, network, pool.time_steps) if network else ""
    place = recipe if recipe in recipes and pool.method in ORDER else None
    found = differences(pool, recipes[place] if place else protocol({"data": {"name": pool.options["data.name"]}}))
    if pool.method == "vanilla" and all(option.startswith("branches.") for option in found):
        found = {}  # it has no branches
    name = pool.dataset["name"]
    differs = [*([] if name == home else [f"dataset {name} ({home})"]), *found.values()]
    row = summarise({"schema": RESULTS_SCHEMA, "trials": pool.trials})[0]
    return {
        "dataset": dataset,
        "network": network or pool.options["model.name"],
        "time_steps": pool.time_steps,
        "method": pool.method,
        "frames": pool.frames,
        "title": pool.title,
        "recipe": place,
        "same_protocol": bool(place) and not differs,
        "differs": differs,
        "seeds": [trial["seed"] for trial in pool.trials],
        **{f"{which}_{what}": row[f"{which}_{what}"] for which in ("best", "last") for what in ("mean", "std")},
        "files": list(pool.files),
        "data": {key: pool.dataset[key] for key in ("name", "provenance", "hash")},
    }


def _row_of(found: Mapping[str, Any], printed: Iterable[dict[str, Any]]) -> dict[str, Any] | None:
    """The row that a line belongs beside: as printed or, where there is none, by another reading."""
    key = [found[name] for name in ("dataset", "network", "time_steps", "method")]
    fits = [r for r in printed if [r["dataset"], r["network"], r["time_steps"], METHODS.get(r["method"])] == key]
    return min(fits, key=lambda row: row["reading"] is not None, default=None)


def _order(found: Mapping[str, Any]) -> tuple[Any, ...]:
    """Those of the row's protocol first; trainings of one recipe together."""
    what = (found["title"].rpartition(": ")[0], found["network"], found["time_steps"], found["title"])
    how = (not found["same_protocol"], found["data"]["name"], found["data"]["hash"])
    return (*how, *what, found["differs"], _rank(found["method"]))


def _rank(method: str) -> tuple[int, str]:
    return (ORDER.index(method) if method in ORDER else len(ORDER), method)
