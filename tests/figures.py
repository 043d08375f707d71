"""The figures of a committed file of results: those it holds, and those that the project's own summaries make of it."""

import json
import math
import re
import statistics
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from itertools import combinations
from pathlib import Path
from typing import Any

from spikeback.report.tables import by_method, summarise

Labels = frozenset[tuple[str, str]]  # (axis, value): what a figure is of
Groups = dict[tuple[Labels, str, str], list[float]]  # by what its figures have in common, what they are, their kind
INPUTS = {"environment", "config", "options", "study", "calibration", "cells", "scale", "calls"}  # asked for, not found
BLOCKS = ("blocks", "layers", "weights")
SERIES = {"values", "seconds", "peak_bytes", "interval", "history", "gradients", "doctor"}  # raw, summarised below
PAPER = Path("paper")  # stands for the paper's tables
FEW = 12  # of a longer list only the last, the lowest and the highest are figures
SCALES = {  # by unit in the text, then by kind of figure; "" is no unit, or one that is not here
    "%": {"share": 100, "part": 100},
    "point": {"gap": 100},
    "points": {"gap": 100},
    "ms": {"seconds": 1e3, "ms": 1},
    "s": {"seconds": 1, "ms": 1e-3},
    "minutes": {"seconds": 1 / 60},
    "hours": {"seconds": 1 / 3600},
    "MB": {"bytes": 1e-6},
    "GB": {"bytes": 1e-9},
    "times": {"part": 1, "raw": 1},
    "": {"count": 1, "share": 1, "part": 1, "raw": 1, "seconds": 1, "ms": 1},
}


SUPERSCRIPTS = "⁰¹²³⁴⁵⁶⁷⁸⁹"


@dataclass(frozen=True)
class Figure:
    """Numbers that belong together: one, (mean, std), (middle, low, high), or (lowest, highest) of a group."""

    values: tuple[float, ...]
    kind: str  # share of images, gap between two, seconds, ms, bytes, count, part (raw, up to 1), raw
    how: str = "single"  # or pair, triple, range


def kind(key: str, value: float) -> str:
    if re.match(r"(last|best)_|.*accuracy", key):
        return "share"
    named = next((name for name in ("seconds", "bytes", "ms") if re.search(rf"(^|_){name}(_|$)", key)), "")
    return named or ("count" if isinstance(value, int) else "part" if abs(value) <= 1 else "raw")


@dataclass
class Evidence:
    figures: set[Figure] = field(default_factory=set)

    def add(self, key: str, *values: float | None, how: str = "single") -> None:
        numbers = tuple(value for value in values if isinstance(value, int | float) and math.isfinite(value))
        if len(numbers) == len(values):
            self.figures.add(Figure(numbers, kind(key, numbers[0]), how))

    def walk(self, item: Any, key: str = "") -> None:
        """Every number of a dict or a list, under the name of its key."""
        if isinstance(item, dict):
            self.record(item)
            for name, value in item.items():
                if name not in INPUTS and not (isinstance(value, list) and (name in SERIES or "_interval" in name)):
                    self.walk(value, name)
        elif isinstance(item, list) and all(isinstance(value, dict) for value in item):
            self.table(item, key)
        elif isinstance(item, list):
            for value in item if len(item) <= 2 * FEW else ():
                self.walk(value, key)
        elif not isinstance(item, bool):
            self.add(key, item)

    def table(self, rows: list[dict[str, Any]], key: str) -> None:
        """Entries of a list; of blocks and the like the last and the extremes."""
        if key in ("arms", "comparisons", "rows") or (len(rows) <= FEW and key not in BLOCKS):
            for row in rows:
                self.walk(row)
            return
        for name in rows[0] if rows else ():
            values = [row[name] for row in rows if isinstance(row.get(name), float)]
            for value in (values[-1], min(values), max(values)) if values else ():
                self.add(name, value)
            self.add(name, min(values, default=None), max(values, default=None), how="range")

    def ranges(self, groups: "Groups") -> None:
        self.figures |= {Figure((min(group), max(group)), key[2], "range") for key, group in groups.items()}

    def record(self, row: dict[str, Any]) -> None:
        """Numbers that one entry holds together: mean and std, median and interval."""
        for name in ["", *(n.removesuffix(s) for n in row for s in ("mean", "median") if n.endswith(f"_{s}"))]:
            mean, median = row.get(f"{name}mean"), row.get(f"{name}median")
            if f"{name}std" in row:
                self.add(name, mean, row[f"{name}std"], how="pair")
            if f"{name}min" in row:
                self.add(name, mean, row[f"{name}min"], row[f"{name}max"], how="triple")
            interval = row.get(f"{name}interval") or (row.get("lowest"), row.get("highest"))
            self.add(name, median, *interval, how="triple")


def of_row(row: dict[str, Any]) -> Labels:
    """What an entry is of: the point and method of a study's row, the arms and the T or batch of a comparison."""
    labels = {axis: str(value) for axis, value in (row.get("point") or {}).items()}
    labels |= {key: str(row[key]) for key in ("method", "of", "to") if row.get(key)}
    labels |= {key: f"{row[key]:g}" for key in ("threshold",) if isinstance(row.get(key), float)}
    labels |= {"setting": row["of"].split()[1]} if len(str(row.get("of")).split()) > 1 else {}
    place = re.search(r", (\w+)(?: =)? (\d+)$", str(row.get("title") or row.get("name") or ""))
    labels |= {place[1]: place[2]} if place else {}
    words = {(axis, value.lower().split()[0]) for axis, value in labels.items()}
    return frozenset(words | {("surrogate", str(row["surrogate"]).lower()) for _ in (0,) if "surrogate" in row})


def part_of(labels: Labels) -> Iterable[Labels]:
    """Every group that agrees with it on some axes."""
    return (frozenset(group) for size in range(len(labels) + 1) for group in combinations(labels, size))


def of_rows(found: Evidence, rows: list[dict[str, Any]]) -> None:
    """Rows of a run or a study, and how far methods of one cell are apart; lowest and highest of every group."""
    found.walk({"rows": rows, "trials": sum(row["seeds"] for row in rows)})
    groups: Groups = {}
    for one in rows:
        for which in (which for which in ("last", "best") if one[f"{which}_mean"] is not None):
            for group in part_of(of_row(one)):
                groups.setdefault((group, which, "share"), []).append(one[f"{which}_mean"])
            for two in (row for row in rows if row is not one and row.get("cell") == one.get("cell")):
                gap = one[f"{which}_mean"] - (two[f"{which}_mean"] or math.nan)
                pooled = math.hypot(one[f"{which}_std"] or 0, two[f"{which}_std"] or 0) / math.sqrt(2)
                found.figures.add(Figure((gap,), "gap"))
                found.add("pooled deviations", gap / pooled if pooled else None)
                for group in part_of(of_row(one)):
                    groups.setdefault((group, which + two["method"], "gap"), []).append(gap)
    found.ranges(groups)


def of_results(found: Evidence, results: dict[str, Any]) -> None:
    """What a run's trials say: means over seeds, and at every probe the first over the last block's gradient."""
    found.walk(results["dataset"] | results["regime"] | {"seconds": results["seconds"]})
    found.add("accuracy", 1 / len(results["dataset"]["classes"]))  # of chance
    for trials in by_method(results).values():
        summarised = {"seed", *(key for row in summarise(results) for key in row), "last_accuracy", "best_accuracy"}
        for key in (
            key for key, value in trials[0].items() if isinstance(value, int | float) and key not in summarised
        ):
            values = [trial[key] for trial in trials if trial.get(key) is not None]
            found.add(key, values[0] if len({*values}) == 1 else statistics.fmean(values))
        norms = ([row[0] / row[-1] if row[-1] else 0 for row in trial["gradients"]["norm"]] for trial in trials)
        for ratios in (ratios for ratios in zip(*norms, strict=False) if min(ratios) > 0):
            mean = statistics.geometric_mean(ratios)
            found.add("ratio", mean, min(ratios), max(ratios), how="triple")


def of_exits(found: Evidence, item: Any) -> None:
    """Every mean of shares over seeds, alone and with its deviation."""
    if isinstance(item, list):
        for value in item:
            of_exits(found, value)
    elif isinstance(item, dict) and item.keys() == {"mean", "std"}:
        found.add("accuracy", item["mean"])
        found.add("accuracy", item["mean"], item["std"], how="pair")
    elif isinstance(item, dict):
        for value in item.values():
            of_exits(found, value)


def of_bench(found: Evidence, data: dict[str, Any]) -> None:
    """Any other file: of comparisons also lowest and highest of every group, of blocks the first over the last."""
    found.walk(data)
    found.add("repetitions", (data.get("options") or {}).get("repetitions"))
    groups: Groups = {}
    for one in data.get("comparisons", ()):
        for group in part_of(of_row(one)):
            groups.setdefault((group, one["key"], "raw"), []).append(one["median"])
    found.ranges(groups)
    ends = [block.get("gradient") for block in data.get("blocks", ())]
    found.add("ratio", ends[0] / ends[-1] if ends and ends[-1] else None)


def of_paper(found: Evidence) -> None:
    """What the paper's tables print, and how far methods are apart there."""
    rows = import_module("spikeback.lab.paper.rows").rows() if find_spec("spikeback.lab.paper.rows") else ()
    for one in rows:
        found.add("accuracy", one.accuracy / 100)
        if one.std is not None:
            found.add("accuracy", one.accuracy / 100, one.std / 100, how="pair")
        same = lambda row: (row.table, row.dataset, row.network, row.time_steps)
        for two in (row for row in rows if same(row) == same(one) and row.accuracy < one.accuracy):
            found.figures.add(Figure(((one.accuracy - two.accuracy) / 100,), "gap"))


@cache
def evidence(path: Path) -> frozenset[Figure]:
    found = Evidence()
    data = {} if path == PAPER else json.loads(path.read_text("utf-8"))
    if path == PAPER:
        of_paper(found)
    elif "exits" in data:
        of_exits(found, data["methods"])
    elif "trials" in data:
        of_results(found, data)
        of_rows(found, summarise(data))
    elif "cells" in data:
        for cell in (cell for cell in data["cells"] if cell["results"]):
            of_results(found, json.loads((path.parent / cell["results"]).read_text()))
        of_rows(found, data["rows"])
    else:
        of_bench(found, data)
    return frozenset(found.figures)


def prints(value: float, text: str) -> bool:
    """Whether the value, rounded to as many digits, is the text."""
    mantissa, _, power = text.replace(",", "").replace("·", "×").partition(" × ")
    power = power or (mantissa if mantissa[-1] in "⁻" + SUPERSCRIPTS else "")
    digits = len(mantissa.partition(".")[2])
    if not power:
        return f"{abs(value):.{digits}f}" == mantissa
    found, exponent = f"{value:.{digits}e}".split("e")
    wanted = int(power[2:].translate(str.maketrans("⁻" + SUPERSCRIPTS, "-0123456789")))
    return int(exponent) == wanted and mantissa in (found, power)
