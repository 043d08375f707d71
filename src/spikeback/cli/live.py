"""What a training shows while it runs: a progress bar with the time left, and the table so far."""

from pathlib import Path
from typing import Any, Literal

from lightning.pytorch.callbacks import Callback
from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from spikeback.cli.estimate import Estimate
from spikeback.cli.interrupt import Interrupted
from spikeback.cli.options import recipe_options
from spikeback.cli.words import as_typed
from spikeback.errors import TrainingError, WriteError
from spikeback.lock import is_used
from spikeback.report import console_table, save_plots, verdict, write_csv, write_report
from spikeback.report.tables import percent
from spikeback.train import Method, Recipe, compare
from spikeback.train.trials import Run, trials_of


def follow(run: Run, methods: list[Method], seeds: list[int], resume: bool) -> None:
    """What all processes but the first do: train along in silence.

    These errors meet all at once. The first tells of them, and its exit code counts: at another's, Lightning would kill
    the first before it has spoken.
    """
    try:
        compare(run, methods, seeds, resume)
    except (TrainingError, Interrupted):
        raise SystemExit(0) from None


def train(
    recipe: Recipe,
    methods: list[Method],
    seeds: list[int],
    out: Path,
    resume: bool,
    kind: Literal["compare", "fit"],
    command: str,
    console: Console,
) -> None:
    """Run the trials with a live display, then write and show what came of them."""
    display = Display(console, out, [(method.name, seed) for method, seed in trials_of(methods, seeds)])
    run = Run(recipe, out, kind, command, [display.finished], display.callbacks, display.say)
    if not run.writes:
        follow(Run(recipe, out, kind, command), methods, seeds, resume)
        return
    with run.alone():
        try:
            data = run.data(seeds[0])  # reading many images has a bar of its own
            for line in (*(f"note: {note}" for note in data.notes), f"training samples: {data.augmented}"):
                display.say(line)
            with display.live:
                results = compare(run, methods, seeds, resume)
            plots = save_plots(results, out)
            report = write_report(results, out / "report.html")
        except (TrainingError, Interrupted, WriteError) as error:
            again = command if resume else f"{command} --resume"
            raise _ended(error, out, f"{len(display.done)} of {len(display.names)}", again) from error
    console.print(console_table(results))
    console.print(verdict(results), markup=False, highlight=False)
    console.print(
        f"report   {report}\nresults  {out / 'results.json'}, results.csv, {len(plots)} plots", soft_wrap=True
    )


class Display:
    """A progress bar over all trials and the table of those that are finished; lines where nobody watches."""

    def __init__(self, console: Console, out: Path, names: list[tuple[str, int]]) -> None:
        self.console, self.out, self.names = console, out, names
        self.done: list[tuple[str, int]] = []
        self.progress = Progress(
            TextColumn("{task.description}"), BarColumn(None), TextColumn("{task.percentage:.0f} %"),
            TimeElapsedColumn(), TextColumn("left: {task.fields[left]}"), console=console, expand=True,
        )  # fmt: skip
        self.bar = self.progress.add_task("preparing", total=None, left="?")
        self.live = Live(self.progress, console=console, transient=True)

    def say(self, line: str) -> None:
        """A line above the bar."""
        self.console.print(as_typed(line, recipe_options()), markup=False, highlight=False, soft_wrap=True)

    def callbacks(self, method: Method, seed: int) -> list[Callback]:
        """What follows one trial."""
        index = self.names.index((method.name, seed))
        label = f"{method.name}, seed {seed} ({index + 1} of {len(self.names)})"
        update = lambda done, total, left: self.progress.update(
            self.bar, completed=done, total=total, left=left, description=label
        )
        after = len(self.names) - len(self.done) - 1
        return [Estimate(update, self.say, len(self.done), after, self.console.is_terminal)]

    def finished(self, results: dict[str, Any]) -> None:
        """Called with the results, before the first trial and after each."""
        for trial in results["trials"]:
            if (name := (trial["method"], trial["seed"])) in self.names and name not in self.done:
                self.done.append(name)
                if not self.console.is_terminal:  # where there is no table to watch
                    self.say(_line(trial, len(self.done), len(self.names)))
        if results["trials"]:
            write_csv(results, self.out / "results.csv")
            self.live.update(Group(console_table(results), self.progress))


def _ended(error: TrainingError | Interrupted | WriteError, out: Path, finished: str, again: str) -> BaseException:
    """The error that ended a run, with what is kept of it and how to go on."""
    if isinstance(error, WriteError) and not (out / "results.json").is_file():
        return error  # there is nothing yet
    kept = f"{finished} trials are finished and kept in {out}"
    if isinstance(error, TrainingError):
        return TrainingError(f"{error}; {kept}")
    kind = Interrupted if isinstance(error, Interrupted) else TrainingError
    kept = f"{kept}, the one under way to its last whole epoch" if is_used(out) else "no trial was begun"
    return kind(f"{error}: {kept}; to go on: {again}")


def _line(trial: dict[str, Any], count: int, of: int) -> str:
    accuracy = percent(trial["last_accuracy"])
    return f"{count} of {of}: {trial['method']}, seed {trial['seed']}, {accuracy} % of the test images"
