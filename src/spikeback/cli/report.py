"""Write the plots and report.html of a run anew from its results.json."""

from typing import Any

from jsonargparse import ArgumentParser
from rich.console import Console

from spikeback.files import as_path
from spikeback.report import console_table, save_plots, verdict, write_csv, write_report
from spikeback.train.results import read_results


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("run", type=str, metavar="RUN", help="a run's folder")


def run(config: Any, console: Console, command: str) -> None:
    path = as_path(config.run) / "results.json"
    results = read_results(path)
    write_csv(results, path.parent / "results.csv")
    save_plots(results, path.parent)
    console.print(console_table(results))
    if results["trials"]:
        console.print(verdict(results), markup=False, highlight=False)
    console.print(f"report   {write_report(results, path.parent / 'report.html')}", soft_wrap=True)
