"""Tables for a terminal of any width: words fold, numbers never; where they have no room, a row's cells stand below
each other.
"""

import copy
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import accumulate, pairwise

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderableType
from rich.measure import Measurement
from rich.table import Column, Table
from rich.text import Text

NUMBER = r"[<>±+−–-]?\d(?:[\d.,:±]*\d)?(?:[eE][+−-]?\d+)?(?: × 10[⁻⁰¹²³⁴-⁹]+)?(?:\s?%)?"
PARTS = re.compile(rf"{NUMBER}|[^\W\d_]+|.", re.S)
NARROW = 10  # characters that a column of words may be folded to
GAP = 2  # between names and values of cells below each other


@dataclass
class TerminalTable:
    """A table that is drawn as wide as the terminal is. Its columns of numbers are those with `no_wrap`."""

    table: Table

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[RenderableType]:
        columns = self.table.columns
        widest = [_widest(column) for column in columns]
        whole = _drawn(self.table, widest)
        frame = Measurement.get(console, options.update_width(10 * sum(widest) + 100), whole).maximum - sum(widest)
        widths = _shared(widest, [_least(column) for column in columns], options.max_width - frame)
        yield _stacked(self.table, options.max_width) if widths is None else _drawn(self.table, widths)


def folded(text: Text, width: int) -> Text:
    """The text in lines of at most `width` characters: broken between words, within a word where it must be, and never
    within a number.
    """
    breaks, used = [], 0
    for start, end in _pieces(text.plain, width):
        size = cell_len(text.plain[start:end].rstrip(" "))
        if used and used + size > width:
            breaks.append(start)
            used = 0
        used = 0 if text.plain[end - 1] == "\n" else used + cell_len(text.plain[start:end])
    lines = text.divide(breaks)
    for line in lines:
        line.rstrip()
    return Text("\n", style=text.style).join(lines)


def _pieces(plain: str, width: int) -> Iterator[tuple[int, int]]:
    """Start and end of what stays together: a number, a word with the space behind it, its parts if it is longer."""
    for word in re.finditer(rf"(?:{NUMBER}|[^\s])+\s?|\s", plain):
        parts = [word[0]]
        if cell_len(word[0].rstrip()) > width:
            parts = [piece for part in PARTS.findall(word[0]) for piece in _cut(part, width)]
        ends = list(accumulate(map(len, parts), initial=word.start()))
        yield from pairwise(ends)


def _cut(part: str, width: int) -> list[str]:
    return re.findall(f".{{1,{width}}}", part) if part.isalpha() else [part]


def _text(cell: object) -> Text:
    return cell if isinstance(cell, Text) else Text(str(cell))


def _lines(cells: Iterable[object]) -> Iterator[str]:
    return (line for cell in cells for line in _text(cell).plain.split("\n"))


def _widest(column: Column) -> int:
    return max(map(cell_len, _lines([column.header, *column.cells])), default=0)


def _least(column: Column) -> int:
    """A column's numbers are whole in it, and the words of its header."""
    header = max((cell_len(word) for word in _text(column.header).plain.split()), default=0)
    if column.no_wrap:
        return max([header, *map(cell_len, _lines(column.cells))])
    numbers = (cell_len(number) for line in _lines(column.cells) for number in re.findall(NUMBER, line))
    return max([min(_widest(column), NARROW), *numbers])


def _shared(widest: list[int], least: list[int], room: int) -> list[int] | None:
    """Widths that together have room: the widest columns give way first. None: there are none."""
    if sum(least) > room:
        return None
    widths = [*widest]
    while sum(widths) > room:
        widths[max(range(len(widths)), key=lambda i: (widths[i] > least[i], widths[i]))] -= 1
    return widths


def _drawn(table: Table, widths: list[int]) -> Table:
    """The table with columns of these widths."""
    drawn = copy.copy(table)
    drawn.columns = [
        replace(
            column, header=folded(_text(column.header), width), width=width, min_width=None, max_width=None,
            no_wrap=True, _cells=[folded(_text(cell), width) for cell in column.cells],
        )
        for column, width in zip(table.columns, widths, strict=True)
    ]  # fmt: skip
    return drawn


def _stacked(table: Table, width: int) -> Table:
    """One line a cell, named by its column; an empty line between rows."""
    names = [Text(" ".join(_text(column.header).plain.split())) for column in table.columns]
    numbers = max((_widest(column) for column in table.columns if column.no_wrap), default=0)
    longest = max((cell_len(name.plain) for name in names), default=0)
    left = min(longest, max(width - GAP - max(numbers, width // 2), NARROW))
    stacked = Table(
        title=table.title, title_justify="left", caption=table.caption, caption_justify="left", box=None,
        show_header=False, pad_edge=False, padding=(0, GAP, 0, 0), show_edge=False,
    )  # fmt: skip
    stacked.add_column(width=left, no_wrap=True, style="dim")
    stacked.add_column(width=width - left - GAP, no_wrap=True)
    for number, cells in enumerate(zip(*(column.cells for column in table.columns), strict=True)):
        if number:
            stacked.add_row("", "")
        for name, cell in zip(names, map(_text, cells), strict=True):
            if cell.plain:
                stacked.add_row(folded(name, left), folded(cell, width - left - GAP))
    return stacked
