"""Results (schema 1, docs/results.md) as one row a method: for the console, for Markdown; as one row a trial: CSV."""

import csv
import io
import math
import statistics
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from rich import box
from rich.table import Table
from rich.text import Text

from spikeback.errors import UsageError
from spikeback.files import write_atomic
from spikeback.report.terminal import TerminalTable

Results = Mapping[str, Any]
SCHEMA = 1
MISSING = "–"
HEADERS = (
    "method",
    "seeds",
    "best %",
    "last %",
    "gradient\nfirst/last",
    "firing\nrate",
    "s/step",
    "inference\nparameters",
)
CAPTION = (
    "Test accuracy of the main branch alone, mean ± sample std over seeds.\n"
    "Gradient: |dL/d(first block)| / |dL/d(last block)| while training."
)


def check(results: Results) -> None:
    """Raise a UsageError unless the results are of schema 1 and hold a finished trial."""
    if results.get("schema") != SCHEMA:
        raise UsageError(f"results: schema {results.get('schema')!r} is unknown; this version reads schema {SCHEMA}")
    if not results.get("trials"):
        raise UsageError("results: no finished trial to report on; let `spikeback compare` finish at least one")


def by_method(results: Results) -> dict[str, list[dict[str, Any]]]:
    """The finished trials of every method, methods in order of first appearance, trials by seed."""
    methods: dict[str, list[dict[str, Any]]] = {}
    for trial in results.get("trials") or ():
        methods.setdefault(trial["method"], []).append(trial)
    return {method: sorted(trials, key=lambda trial: trial["seed"]) for method, trials in methods.items()}


def summarise(results: Results) -> list[dict[str, Any]]:
    """One row a method, in order of first appearance; what was not measured is None.

    Returns:
        Rows with `method`; `seeds`, their number; `{last,best}_{mean,std,min,max}`, accuracies as fractions with the
        sample standard deviation (None for one seed); `gradient_ratio_start` and `gradient_ratio`, geometric means
        over seeds; `firing_rate`, mean; `seconds_per_step`, median; `parameters_inference`.

    Raises:
        UsageError: another schema, or no finished trial.
    """
    check(results)
    return [_row(method, trials) for method, trials in by_method(results).items()]


def finite(values: Iterable[float | None]) -> list[float]:
    """What was measured: neither None nor NaN nor infinite."""
    return [value for value in values if value is not None and math.isfinite(value)]


def _row(method: str, trials: list[dict[str, Any]]) -> dict[str, Any]:
    measured = lambda key: finite(trial.get(key) for trial in trials)
    row: dict[str, Any] = {"method": method, "seeds": len(trials)}
    for which in ("last", "best"):
        values = measured(f"{which}_accuracy")
        row[f"{which}_mean"] = statistics.fmean(values) if values else None
        row[f"{which}_std"] = statistics.stdev(values) if len(values) > 1 else None
        row[f"{which}_min"] = min(values, default=None)
        row[f"{which}_max"] = max(values, default=None)
    for key, average in (
        ("gradient_ratio_start", _geometric_mean),
        ("gradient_ratio", _geometric_mean),
        ("firing_rate", statistics.fmean),
        ("seconds_per_step", statistics.median),
        ("parameters_inference", max),
    ):
        values = measured(key)
        row[key] = average(values) if values else None
    return row


def _geometric_mean(values: list[float]) -> float:
    """Zero as soon as one value is (`statistics.geometric_mean` refuses zeros before Python 3.12)."""
    return math.exp(statistics.fmean(map(math.log, values))) if min(values) > 0 else 0.0


def percent(fraction: float | None) -> str:
    """0.1234 -> "12.3", the sign left to the reader's context."""
    return MISSING if fraction is None or not math.isfinite(fraction) else f"{100 * fraction:.1f}"


def plus_minus(mean: float | None, std: float | None) -> str:
    """Fractions to "12.3 ± 0.4", or "12.3" where one seed has no spread."""
    return percent(mean) if std is None else f"{percent(mean)} ± {percent(std)}"


def power_of_ten(exponent: int) -> str:
    """-4 -> "10⁻⁴": superscripts that need neither HTML nor TeX."""
    return "10" + str(exponent).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))


def scientific(value: float | None) -> str:
    """Two digits, as a person writes them: 0.25, 1500 -> "1.5 × 10³", 0.0006 -> "6 × 10⁻⁴"."""
    if value is None or not math.isfinite(value):
        return MISSING
    if value == 0 or 0.01 <= abs(value) < 1000:
        return f"{value:.0f}" if abs(value) >= 10 else f"{value:.2g}"
    mantissa, exponent = f"{value:.1e}".split("e")
    return f"{mantissa.removesuffix('.0')} × {power_of_ten(int(exponent))}"


def count(number: float | None) -> str:
    """11173962 -> "11,173,962"."""
    return MISSING if number is None else f"{number:,.0f}"


def seconds(value: float | None) -> str:
    """Milliseconds below one second, hundredths above."""
    return MISSING if value is None else f"{value:.3f}" if value < 1 else f"{value:.2f}"


def rate(value: float | None) -> str:
    """Spikes per neuron and time step, three decimals."""
    return MISSING if value is None else f"{value:.3f}"


def _cells(row: dict[str, Any]) -> tuple[str, ...]:
    return (
        row["method"],
        str(row["seeds"]),
        plus_minus(row["best_mean"], row["best_std"]),
        plus_minus(row["last_mean"], row["last_std"]),
        scientific(row["gradient_ratio"]),
        rate(row["firing_rate"]),
        seconds(row["seconds_per_step"]),
        count(row["parameters_inference"]),
    )


def console_table(results: Results) -> TerminalTable:
    """The summary for a console, drawn again and again as trials finish: empty before the first.

    Raises:
        UsageError: trials of another schema.
    """
    rows = [_cells(row) for row in summarise(results)] if results.get("trials") else []
    rows = [[cell.replace(" ± ", "±") for cell in row] for row in rows]  # four columns that 80 cannot spare
    table = Table(box=box.SIMPLE_HEAD, caption=CAPTION, caption_justify="left", show_edge=False, pad_edge=False)
    table.collapse_padding = True
    for header in HEADERS:
        name = header == "method"
        table.add_column(header, justify="left" if name else "right", no_wrap=not name)
    for row in rows:
        table.add_row(*map(Text, row))  # Text: a method's [name] is not markup
    return TerminalTable(table)


def markdown(results: Results) -> str:
    """The summary as a Markdown table.

    Raises:
        UsageError: another schema, or no finished trial.
    """
    rows = [tuple(cell.replace("|", "\\|") for cell in _cells(row)) for row in summarise(results)]
    rule = ("---", *("---:" for _ in HEADERS[1:]))
    headers = [header.replace("\n", " ") for header in HEADERS]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in (headers, rule, *rows))


def write_csv(results: Results, path: str | Path) -> Path:
    """One row a trial, its scalar fields only (no history, gradients, calibration, doctor), written atomically.

    Raises:
        UsageError: another schema, no finished trial, or a folder that cannot be written to.
    """
    check(results)
    nested = ("history", "gradients", "calibration", "doctor")
    scalars = [{k: v for k, v in t.items() if k not in nested} for t in results["trials"]]
    columns = list(dict.fromkeys(key for trial in scalars for key in trial))
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(scalars)
    return write_atomic(path, text.getvalue())
