"""What a training shows while it runs: a progress bar with the time left, and the table so far."""

from pathlib import Path
from typing import Any, Literal

import lightning as L
from lightning.pytorch.callbacks import Callback
from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from spikeback.cli.interrupt import Interrupted
from spikeback.errors import TrainingError, WriteError
from spikeback.report import console_table, save_plots, verdict, write_csv, write_report
from spikeback.report.tables import percent
from spikeback.train import Method, Recipe, compare
from spikeback.train.trials import Run, trials_of


class Bar(Callback):
    """Moves a progress bar with every optimiser step, over all trials; what was done before a resume is no speed."""

    def __init__(self, progress: Progress, label: str, index: int, trials: int) -> None:
        self.progress, self.label, self.index, self.trials = progress, label, index, trials

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        steps = int(trainer.estimated_stepping_batches)
        self.before = self.index * steps
        done, total = self.before + trainer.global_step, self.trials * steps
        bar = self.progress.tasks[0]
        if trainer.global_step or bar.total is None:
            self.progress.reset(bar.id, total=total, completed=done, description=self.label)
        else:
            self.progress.update(bar.id, completed=done, description=self.label)

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self.progress.update(self.progress.task_ids[0], completed=self.before + trainer.global_step)


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
    names = [(method.name, seed) for method, seed in trials_of(methods, seeds)]
    progress = Progress(
        TextColumn("{task.description}"), BarColumn(None), TextColumn("{task.percentage:.0f} %"), TimeElapsedColumn(),
        TextColumn("left:"), TimeRemainingColumn(), console=console, expand=True,
    )  # fmt: skip
    progress.add_task("preparing", total=None)
    done: list[tuple[str, int]] = []

    def bar(method: Method, seed: int) -> list[Callback]:
        index = names.index((method.name, seed))
        return [Bar(progress, f"{method.name}, seed {seed} ({index + 1} of {len(names)})", index, len(names))]

    say = lambda line: progress.console.print(line, markup=False, highlight=False, soft_wrap=True)
    run = Run(recipe, out, kind, command, callbacks=bar, say=say)
    if not run.writes:
        follow(Run(recipe, out, kind, command), methods, seeds, resume)
        return
    try:
        run.data(seeds[0])  # reading many pictures has a bar of its own
        with Live(progress, console=console, transient=True) as display:

            def finished(results: dict[str, Any]) -> None:
                for trial in results["trials"]:
                    if (name := (trial["method"], trial["seed"])) in names and name not in done:
                        done.append(name)
                        if not console.is_terminal:  # where there is no table to watch
                            say(_line(trial, len(done), len(names)))
                if results["trials"]:
                    write_csv(results, out / "results.csv")
                    display.update(Group(console_table(results), progress))

            run.listeners = [finished]
            results = compare(run, methods, seeds, resume)
        plots = save_plots(results, out)
        report = write_report(results, out / "report.html")
    except (TrainingError, Interrupted, WriteError) as error:
        if isinstance(error, WriteError) and not (out / "results.json").is_file():
            raise  # there is nothing yet
        kept = f"{len(done)} of {len(names)} trials are finished and kept in {out}"
        if isinstance(error, TrainingError):
            raise TrainingError(f"{error}; {kept}") from error
        again = command if resume else f"{command} --resume"
        ended = Interrupted if isinstance(error, Interrupted) else TrainingError
        kept = f"{kept}, the one under way to its last whole epoch" if out.is_dir() else "no trial was begun"
        raise ended(f"{error}: {kept}; to go on: {again}") from error
    console.print(console_table(results))
    console.print(verdict(results), markup=False, highlight=False)
    console.print(
        f"report   {report}\nresults  {out / 'results.json'}, results.csv, {len(plots)} plots", soft_wrap=True
    )


def _line(trial: dict[str, Any], count: int, of: int) -> str:
    accuracy = percent(trial["last_accuracy"])
    return f"{count} of {of}: {trial['method']}, seed {trial['seed']}, {accuracy} % of the test pictures"
