"""Writes the tables of README and docs anew from the committed results, so that no digit of them is typed.

A table stands between `<!-- table: NAME -->` and `<!-- end of table -->`; TABLES has, by name, what it is made of.

    python scripts/tables_in_docs.py
"""

import json
import math
import re
import statistics
from collections.abc import Callable, Iterable
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

from spikeback.lab.paper.rows import METHODS as NAMED
from spikeback.lab.paper.rows import rows
from spikeback.report import markdown
from spikeback.report.tables import count, plus_minus, scientific

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
MARKED = re.compile(r"(<!-- table: (.+?) -->\n).*?(?=<!-- end of table -->)", re.DOTALL)
METHODS = ("vanilla", "shortcut", "evolutionary")
REGIMES = ("vanishing", "authors")

Cells = Iterable[Any]
Found = dict[tuple[str, str], dict[str, Any]]  # the rows of a study by cell and method


def read(path: str | Path) -> Any:
    return json.loads((ROOT / "results" / path).read_text(encoding="utf-8"))


def table(headers: str, lines: Iterable[Cells], words: int = 1) -> str:
    """Columns after the first `words` are numbers, to the right."""
    count = len(headers.split("|"))
    rule = "|" + "---|" * words + "---:|" * (count - words)
    return "\n".join(
        [f"| {headers} |".replace("|  |", "| |"), rule, *(f"| {' | '.join(line)} |" for line in lines), ""]
    )


def study(name: str) -> Found:
    return {(row["cell"], row["method"]): row for row in read(f"{name}/sweep.json")["rows"]}


def last(found: Found, cell: str, methods: Iterable[str] = METHODS) -> list[str]:
    """Accuracy after the last epoch, by method."""
    return [plus_minus(row["last_mean"], row["last_std"]) for row in (found[cell, method] for method in methods)]


def gradient(found: Found, cell: str) -> str:
    """Of the first block over the last, untrained."""
    value = found[cell, "vanilla"]["gradient_ratio_start"]
    return f"{value:.1f}" if 10 <= value < 1000 else scientific(value)


def ratio(comparison: dict[str, Any], interval: bool = True) -> str:
    """A median, and the interval around it, to three digits."""
    middle, low, high = (three(value) for value in (comparison["median"], *comparison["interval"]))
    return f"{middle} ({low} - {high})" if interval else middle


def three(value: float) -> str:
    return f"{value:.2f}" if value >= 0.9995 else f"{value:.3g}"


def expected() -> str:
    """The paper's row, and ours: ResNet-34, T = 2, in both regimes, at the usual start and with small norms."""
    printed = [row for row in rows() if (row.table, row.network, row.time_steps) == (1, "ResNet34", 2)]
    paper = {NAMED.get(row.method): f"{row.accuracy:.2f}" for row in printed if not row.reading}
    usual, small = study("evidence/table1"), study("evidence/fidelity")
    return table("| vanilla % | shortcut % | evolutionary %", [
        ["published, paper's Table 1", *(paper[method] for method in METHODS)],
        ["here, gradient vanishes (triangle, Eq. 4a)", *last(usual, "resnet34-T2-vanishing")],
        ["here, gradient explodes (the authors' tanh)", *last(usual, "resnet34-T2-authors")],
        ["here, vanishes, small residual norms", *last(small, "vanishing")],
        ["here, explodes, small residual norms", *last(small, "authors")],
    ])  # fmt: skip


def supported() -> str:
    columns = read("peers/supported.json")
    labels = next(iter(columns.values()))
    return table(
        f"| {' | '.join(columns)}",
        ([label, *("{} of {}".format(*column[label]) for column in columns.values())] for label in labels),
    )


def table1() -> str:
    found = study("evidence/table1")
    cells = product(("34", "18"), ("2", "4"), REGIMES)
    return table(
        "network | T | regime | gradient, start | vanilla % | shortcut % | evolutionary % | seeds",
        ([f"ResNet-{n}", t, regime, gradient(found, cell), *last(found, cell), str(found[cell, "vanilla"]["seeds"])]
         for n, t, regime in cells for cell in [f"resnet{n}-T{t}-{regime}"]),
        words=3,
    )  # fmt: skip


def fidelity() -> str:
    usual, small = study("evidence/table1"), study("evidence/fidelity")
    arms = lambda regime: {"none": last(usual, f"resnet34-T2-{regime}"), "fidelity": last(small, regime)}
    return table(
        "regime | calibrated | vanilla % | shortcut % | evolutionary %",
        ([regime, kind, *cells] for regime in REGIMES for kind, cells in arms(regime).items()),
        words=2,
    )


def by_gradient(name: str, header: str, cells: Iterable[str]) -> str:
    """Cells of a study in the order given: the gradient at the start, vanilla and evolutionary training."""
    found = study(f"evidence/{name}")
    line = lambda cell: [cell, gradient(found, cell), *last(found, cell, ("vanilla", "evolutionary"))]
    return table(f"{header} | gradient, start | vanilla % | evolutionary %", map(line, cells))


def by_cell(name: str, headers: str, cells: Iterable[str]) -> str:
    found = study(f"evidence/{name}")
    return table(headers, ([cell, *last(found, cell, ["evolutionary"])] for cell in cells))


def by_method(name: str, header: str, names: dict[str, str]) -> str:
    """The methods of a study's only cell; `names` has those that are called otherwise on the page."""
    found = study(f"evidence/{name}")
    return table(f"{header} | last %", ([names.get(m, m), *last(found, cell, [m])] for cell, m in found))


def bf16() -> str:
    """Of ResNet-18 at T = 2 in the vanishing regime."""
    half, full = study("evidence/bf16"), study("evidence/table1")
    cell = "resnet18-T2-vanishing"
    return table("| bfloat16 % | float32 %", (
        [method, *last(half, "bf16-mixed", [method]), *last(full, cell, [method])]
        for method in ("vanilla", "evolutionary")
    ))  # fmt: skip


def calibrated() -> str:
    found, vary = study("doctor/calibrate"), read("doctor/calibrate/sweep.json")["study"]["vary"]
    arms = ("vanilla", "evolutionary")
    return table(
        "regime | calibrated | SGD, vanilla | SGD, evolutionary | Adam, vanilla | Adam, evolutionary",
        ([regime, kind, *(cell for o in ("sgd", "adam") for cell in last(found, f"{regime}-{kind}-{o}", arms))]
         for regime, kind in product(vary["regime"], vary["train.calibrate"])),
        words=2,
    )  # fmt: skip


def start() -> str:
    found = study("doctor/start") | study("doctor/start-cifar10")
    settings = {
        "resnet18-vanishing": "ResNet-18, triangle", "resnet18-authors": "ResNet-18, tanh",
        "resnet19": "ResNet-19, triangle", "events": "ResNet-18, triangle, events, T = 10",
        "resnet56": "ResNet-56, triangle, CIFAR-10 (JPEG)",
        "resnet18-all": "ResNet-18, tanh, SGD, all of CIFAR-10 (JPEG)",
    }  # fmt: skip
    arms = list(product(("vanilla", "evolutionary"), {"none": "usual start", "fidelity": "small norms"}.items()))
    return table(
        " | ".join(["setting", *(f"{method}, {words}" for method, (_, words) in arms)]),
        ([name, *(last(found, f"{cell}-{kind}", [method])[0] for method, (kind, _) in arms)]
         for cell, name in settings.items()),
    )  # fmt: skip


def depth() -> str:
    """First over last gradient before training and after each epoch, over seeds."""
    lines = []
    for cell in read("doctor/depth/sweep.json")["cells"]:
        trials = read(f"doctor/depth/{cell['results']}")["trials"]
        for method in dict.fromkeys(trial["method"] for trial in trials):
            norms = [t["gradients"]["norm"] for t in trials if t["method"] == method]  # (seeds, probes, blocks)
            ratios = [[row[0] / row[-1] for row in probes] for probes in zip(*norms, strict=True)]
            means = [math.exp(statistics.fmean(map(math.log, r))) for r in ratios]
            texts = [tuple(map(scientific, (m, min(r), max(r)))) for m, r in zip(means, ratios, strict=True)]
            lines.append([cell["name"], method, *("{} ({} to {})".format(*text) for text in texts)])
    return table("layers | method | before training | epoch 1 | epoch 2 | epoch 3", lines, words=6)


def theory() -> str:
    return table(
        "surrogate | V_th | gain | gain 1 at a height of",
        ([f"`{row['surrogate']}`", f"{row['threshold']:g}", f"{row['gain']:.3f}", f"{row['critical']:.3f}"]
         for row in read("doctor/theory.json")["identity_blocks"]),
    )  # fmt: skip


def branches() -> str:
    """Time and peak over those without branches; a network with branches and without."""
    results = read("bench/branches.json")
    cells = [f"by {by} float32, ResNet-{n}" for n in (18, 34) for by in ("stage", "block")]
    of = {(row["of"], row["key"]): row for row in results["comparisons"]}
    arms = {arm["name"]: arm for arm in results["arms"]}
    return table("| ResNet-18, by stage | ResNet-18, by block | ResNet-34, by stage | ResNet-34, by block", [
        ["time", *(ratio(of[cell, "seconds"]) for cell in cells)],
        ["memory", *(ratio(of[cell, "peak_bytes"]) for cell in cells)],
        ["parameters in training", *(count(arms[cell]["facts"]["parameters_training"]) for cell in cells)],
    ])  # fmt: skip


def memory() -> str:
    of = {(row["of"], row["to"], row["key"]): row for row in read("bench/memory.json")["comparisons"]}
    lines = {
        "ours / SpikingJelly, as its users run it": ("ours float32", "spikingjelly stock", "peak_bytes"),
        "packed spikes / SpikingJelly, likewise": ("packed float32", "spikingjelly stock", "peak_bytes"),
        "time, packed / ours": ("packed float32", "ours float32", "seconds"),
    }
    steps = [2, 4, 8, 16]
    return table(f"T | {' | '.join(map(str, steps))}", (
        [name, *(ratio(of[f"{a}, T = {t}", f"{b}, T = {t}", key], interval=False) for t in steps)]
        for name, (a, b, key) in lines.items()
    ))  # fmt: skip


def waiting() -> str:
    files = {
        "crop-flip": ("crop, flip", "0 (automatic)"),
        "autoaugment-cutout": ("crop, flip, AutoAugment, Cutout 16", "1 (automatic)"),
        "autoaugment-cutout-no-worker": ("the same", "0"),
    }
    share = lambda name: f"{100 * read(f'bench/data-{name}.json')['share']:.1f} %"
    link = lambda name: f"[data-{name}.json](../results/bench/data-{name}.json)"
    return table(
        "augmentation | workers | share of the time waited | file",
        ([*words, share(name), link(name)] for name, words in files.items()),
        words=4,
    )


TABLES: dict[str, Callable[[], str]] = {
    "what to expect": expected,
    "the demo": lambda: markdown(read("demo/results.json")),
    "supported": supported,
    "table 1 in small": table1,
    "attempts": partial(by_cell, "attempts", "attempt | evolutionary %", ["stage-taps", "losses", "fidelity"]),
    "fidelity": fidelity,
    "layers": partial(by_gradient, "layers", "layers", ["20", "32", "44", "56"]),
    "lambda": partial(by_method, "lambda", "lambda", {}),
    "branches": partial(by_cell, "branches", "branches | last %", ["stage-taps", "losses", "by-epoch", "current"]),
    "surrogate": partial(by_gradient, "surrogate", "surrogate", ["atan", "triangle-threshold-1", "rectangle"]),
    "events": partial(by_method, "events", "method", {}),
    "bfloat16": bf16,
    "calibrated": calibrated,
    "start": start,
    "depth": depth,
    "theory": theory,
    "cost of branches": branches,
    "memory": memory,
    "waiting": waiting,
}


def renewed(page: str) -> str:
    """The page with the tables that the files hold now. Raises KeyError for a table that is none."""
    return MARKED.sub(lambda match: match[1] + TABLES[match[2]](), page)


def main() -> None:
    for page in PAGES:
        page.write_text(renewed(page.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
