"""Look at datasets on disk."""

from typing import Any

from jsonargparse import ArgumentParser
from rich.console import Console
from rich.table import Table
from rich.text import Text

from spikeback.cli.options import recipe_options
from spikeback.cli.words import as_typed
from spikeback.errors import UsageError
from spikeback.files import as_path
from spikeback.report.terminal import TerminalTable

CHECK = """Say what a folder is: which dataset, samples of each class, hashes, and which files are broken or missing.

Every file is opened. Writes a contact sheet of samples. The exit code is 0 if all is well, 1 if not.
"""
SHOWN = 20  # broken or missing files that are named


def add_arguments(parser: ArgumentParser) -> None:
    actions = parser.add_subcommands(dest="action", metavar="ACTION")
    check = type(parser)(description=CHECK)
    check.add_argument("root", type=str, nargs="?", metavar="FOLDER", help="the folder")
    check.add_argument("--most", type=int, help="open so many files at most, evenly spread; empty opens all")
    check.add_argument("--sheet", type=str, default="contact-sheet.png", help="the contact sheet to write")
    actions.add_subcommand("check", check, help=CHECK.split("\n")[0])


def run(config: Any, console: Console, command: str) -> None:
    from spikeback.data.check import check
    from spikeback.data.sheet import contact_sheet

    options = config[config.action]
    if options.most is not None and options.most < 1:
        raise UsageError(f"--most must be at least 1, not {options.most}")
    if not options.root:
        raise UsageError("spikeback data check needs a FOLDER, the one to look at; . is the current one")
    root = as_path(options.root)
    try:
        finding = check(root, options.most)
    except UsageError as error:  # of a training, which has the option
        raise UsageError(str(error).replace("data.root=", "")) from None
    use = f"--data.name {finding.source} --data.root {root}"
    console.print(f"{root} is {finding.source}: use it with {use}", soft_wrap=True, markup=False)
    console.print(_table(finding.counts))
    for name, value in finding.hashes.items():
        console.print(f"{name}: {value}", soft_wrap=True)
    for note in finding.notes:
        console.print(as_typed(f"note: {note}", recipe_options()), soft_wrap=True, markup=False)
    for word, lines in (("missing", finding.missing), ("broken", finding.broken)):
        for line in lines[:SHOWN]:
            console.print(as_typed(f"{word}: {line}", recipe_options()), soft_wrap=True, markup=False)
        if len(lines) > SHOWN:
            console.print(f"{word}: {len(lines) - SHOWN} more")
    if finding.refused:
        console.print(as_typed(f"refused: {finding.refused}", recipe_options()), soft_wrap=True, markup=False)
    console.print(f"{finding.checked:,} files opened, {len(finding.broken)} broken, {len(finding.missing)} missing")
    if any(finding.samples.values()):
        console.print(f"contact sheet  {contact_sheet(finding.samples, options.sheet)}", soft_wrap=True, markup=False)
    if not finding.whole:
        raise SystemExit(1)


def _table(counts: dict[str, dict[str, int]]) -> TerminalTable:
    """One row a half: samples, classes, and the range over classes."""
    table = Table()
    for column in ("", "samples", "classes", "in a class"):
        table.add_column(column, justify="left" if column == "" else "right", no_wrap=column != "")
    for half, classes in counts.items():
        sizes = classes.values()
        each = "" if not sizes else f"{min(sizes):,}" if min(sizes) == max(sizes) else f"{min(sizes):,}-{max(sizes):,}"
        table.add_row("all" if half == "." else Text(half), f"{sum(sizes):,}", f"{len(sizes):,}", each)
    return TerminalTable(table)
