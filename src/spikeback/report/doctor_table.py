"""A diagnosis (schema 1, docs/doctor.md) in the terminal: a row a block, and the verdict under it."""

import io
import math
import textwrap
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from rich import box
from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderableType
from rich.table import Table
from rich.text import Text

from spikeback.report.tables import MISSING, power_of_ten
from spikeback.report.terminal import TerminalTable

Facts = Mapping[str, Any]
EIGHTHS = " ▏▎▍▌▋▊▉"
LONGEST = 24  # of a block's name and of a bar, in characters
SHORTEST = 8  # of a bar, whose header is "gradient"
STYLES = {
    "healthy": "green", "vanishing": "yellow", "exploding": "red", "dead": "bold red", "saturated": "magenta",
    "chaotic": "cyan", "statistics": "blue",
}  # fmt: skip


class Column(NamedTuple):
    """`why` explains the column below the table; where a console is narrow, the lowest `rank` is left out first."""

    header: str
    cells: list[str]
    why: str = ""
    rank: int = 9

    @property
    def width(self) -> int:
        return max(cell_len(line) for text in (self.header, *self.cells) for line in text.split("\n"))


@dataclass
class DoctorTable:
    """`doctor_table`, as wide as the console that it is printed on."""

    facts: Facts

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[RenderableType]:
        yield doctor_table(self.facts, options.max_width)


def doctor_table(facts: Facts, width: int = 80) -> TerminalTable:
    """One row a block from the input to the output, for a console of `width` columns; without what was not measured.

    The bar is the block's gradient over the last block's on a log axis whose ends the header names; │ marks 1.
    """
    rows = facts["blocks"]
    columns = _columns(rows)
    room = lambda: width - sum(column.width + 1 for column in columns)  # for the bar
    while room() < SHORTEST and (least := min(columns, key=lambda column: column.rank)).rank < 9:
        columns.remove(least)
    length = max(SHORTEST, min(LONGEST, room()))
    columns.insert(1, Column("gradient\n{}", _bars(relative(rows), length)))
    columns[1] = columns[1]._replace(header=f"gradient\n{_scale(relative(rows), length)}")
    gap = 1 if sum(column.width + 2 for column in columns) - 2 <= width else 0
    why = "; ".join(column.why for column in columns if column.why) + "."
    table = Table(
        box=box.SIMPLE_HEAD, show_edge=False, padding=(0, gap, 0, 0), pad_edge=False, caption=Text(why, "dim"),
        caption_justify="left",
    )  # fmt: skip
    for i, column in enumerate(columns):
        words = i == 0 or column.header == "kind"
        table.add_column(column.header, justify="left" if words or i == 1 else "right", no_wrap=not words)
    for cells in zip(*(column.cells for column in columns), strict=True):
        table.add_row(*(Text(cell, STYLES.get(cell, "")) for cell in cells))
    return TerminalTable(table)


def doctor_text(facts: Facts, width: int = 100) -> str:
    """What was diagnosed, the table and the verdict as plain text of at most `width` columns, code lines apart."""
    head = f"{facts['net']}: batch {facts['batch_size']}, {facts['time_steps']} time steps, loss {short(facts['loss'])}"
    console = Console(file=io.StringIO(), width=width, color_system=None, force_terminal=False, legacy_windows=False)
    console.print(doctor_table(facts, width))
    table = "\n".join(line.rstrip() for line in console.file.getvalue().rstrip().split("\n"))  # pyright: ignore
    lines = [*facts["verdict"]["text"].split("\n"), *facts.get("notes", [])]
    verdict = [_wrapped(line, width) for line in lines]
    return "\n".join([head, "", table, "", *verdict])


def _wrapped(line: str, width: int) -> str:
    """A line of the verdict; code, which is indented, stays in one piece."""
    return line if line[:1] == " " else textwrap.fill(line, width, subsequent_indent=" " * 3 * line[:1].isdigit())


def relative(rows: list[dict[str, Any]]) -> list[float | None]:
    """Every block's gradient over the last block's; None where that is undefined."""
    last = rows[-1]["gradient"]
    if not last or not math.isfinite(last):
        return [None] * len(rows)
    return [None if row["gradient"] is None else row["gradient"] / last for row in rows]


def _columns(rows: list[dict[str, Any]]) -> list[Column]:
    """All columns but the bar, of what was measured."""
    get = lambda key: [row.get(key) for row in rows]
    columns = [
        Column("block", [_shortened(row["name"]) for row in rows]),
        Column("last\n= 1", [short(ratio) for ratio in relative(rows)], "gradient: norm of dL/d(block)"),
        Column("gain", [short(v) for v in get("gain")], "gain: norm of dL/d(input) over that of dL/d(output)", 8),
        Column("pre-\ndict", [short(v) for v in get("predicted")], "predict: the gain that theory expects", 6),
        Column("ReLU", [short(v) for v in get("relu")], "ReLU: the gain with ReLU in place of spikes", 3),
        Column("act-\nive", [share(v) for v in get("active")], "active: membranes where the surrogate is not 0", 7),
        Column("rate", [share(v) for v in get("rate")], "rate: spikes per neuron and step", 7),
        Column("si-\nlent", [share(v) for v in get("silent")], "silent: neurons that never fire", 4),
        Column("fide-\nlity", [two(v) for v in get("fidelity")], "fidelity: correlation of spikes under noise", 5),
        Column("cohe-\nrent", [two(v) for v in get("coherence")], "coherent: the gradient's signal share", 2),
        Column("des-\ncent", [_bounded(v) for v in get("descent")], "descent: loss change, measured / predicted", 1),
        Column("kind", [row.get("kind") or MISSING for row in rows]),
    ]  # fmt: skip
    return [column for column in columns if set(column.cells) != {MISSING}]


def _shortened(name: str) -> str:
    """Its end is what tells it from others."""
    return name if len(name) <= LONGEST else f"…{name[1 - LONGEST :]}"


def short(value: float | None) -> str:
    """At most five characters: 0.63, 12, 6e-4."""
    if value is None or math.isnan(value):
        return MISSING if value is None else "nan"
    if math.isinf(value):
        return "∞" if value > 0 else "-∞"
    if value == 0 or 0.01 <= abs(value) < 9.995:
        return f"{value:.2f}" if value else "0"
    if 1 <= abs(value) < 999.5:
        return f"{value:.0f}"
    mantissa, exponent = f"{value:.0e}".split("e")
    return f"{mantissa}e{int(exponent)}"


def two(value: float | None) -> str:
    """A correlation, to two decimals."""
    return MISSING if value is None else f"{value:.2f}".replace("-0.00", "0.00")


def share(value: float | None) -> str:
    """A share in per cent; what is nearly none or nearly all is not rounded to it."""
    if value is None:
        return MISSING
    return "<1%" if 0 < value < 0.005 else ">99%" if 0.995 < value < 1 else f"{100 * value:.0f}%"


def _bounded(value: float | None) -> str:
    """Far from 1 is far from 1."""
    if value is None or not math.isfinite(value):
        return MISSING
    return ">99" if value > 99 else "<-99" if value < -99 else f"{value:.1f}".replace("-0.0", "0.0")


def _axis(ratios: list[float | None]) -> tuple[int, int]:
    """The log axis: whole powers of ten, 1 among them, and so wide that the shortest bar can be seen."""
    logs = [math.log10(ratio) for ratio in ratios if ratio and 0 < ratio < math.inf]
    low, high = min(logs, default=0), max(logs, default=0)
    return min(math.floor(low - 0.05 * (high - low)), -1), max(math.ceil(high - 1e-9), 0)


def _scale(ratios: list[float | None], length: int) -> str:
    """What the ends of the axis are."""
    low, high = (power_of_ten(p) if p else "1" for p in _axis(ratios))
    return f"{low}{high:>{length - len(low)}}"


def _bars(ratios: list[float | None], length: int) -> list[str]:
    """One bar a block, of `length` characters, drawn to an eighth of one."""
    low, high = _axis(ratios)
    return [_bar(ratio, low, high, length) for ratio in ratios]


def _bar(ratio: float | None, low: int, high: int, length: int) -> str:
    if ratio is None or math.isnan(ratio):
        return MISSING
    place = 0.0 if ratio <= 0 else 1.0 if math.isinf(ratio) else (math.log10(ratio) - low) / (high - low)
    whole, rest = divmod(round(8 * length * place), 8)
    bar = ("█" * whole + EIGHTHS[rest].strip()).ljust(length)
    one = min(math.floor(length * -low / (high - low)), length - 1)
    return bar[:one] + "│" + bar[one + 1 :] if bar[one] == " " else bar
