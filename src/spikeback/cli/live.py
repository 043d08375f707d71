"""What a training shows while it runs: a progress bar with the time left, and the table so far."""

from pathlib import Path
from typing import Any, Literal

import lightning as L
from lightning.pytorch.callbacks import Callback
from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from spikeback.cli.interrupt import Interrupted
from spikeback.errors import TrainingError
from spikeback.report import console_table, save_plots, write_csv, write_report
from spikeback.train import Method, Recipe, compare
from spikeback.train.trials import Run, trials_of


class Bar(Callback):
    """Moves a progress bar with every optimiser step, over all trials."""

    def __init__(self, progress: Progress, label: str, index: int, trials: int) -> None:
        self.progress, self.label, self.index, self.trials = progress, label, index, trials

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        steps = int(trainer.estimated_stepping_batches)
        task = self.progress.task_ids[0]
        done = self.index * steps + trainer.global_step
        self.progress.update(task, total=self.trials * steps, completed=done, description=self.label)

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self.progress.advance(self.progress.task_ids[0])


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
    partial: dict[str, Any] = {"schema": 1, "trials": []}

    def bar(method: Method, seed: int) -> list[Callback]:
        index = names.index((method.name, seed))
        label = f"{method.name}, seed {seed} ({index + 1} of {len(names)})"
        return [Bar(progress, label, index, len(names))]

    run = Run(recipe, out, kind, command, callbacks=bar)
    run.data(seeds[0])  # reading many pictures has a bar of its own
    with Live(progress, console=console, transient=True) as display:

        def finished(results: dict[str, Any]) -> None:
            partial.update(results)
            if results["trials"]:
                write_csv(results, out / "results.csv")
                display.update(Group(console_table(results), progress))

        run.listeners = [finished]
        try:
            results = compare(run, methods, seeds, resume)
        except TrainingError as error:
            raise TrainingError(f"{error}; {kept(partial, len(names), out)}") from error
        except Interrupted as error:
            done = f"{kept(partial, len(names), out)}, the one under way to its last whole epoch"
            again = command if resume else f"{command} --resume"
            raise Interrupted(f"{error}: {done}; to go on: {again}") from error
    plots = save_plots(results, out)
    report = write_report(results, out / "report.html")
    console.print(console_table(results))
    console.print(f"report   {report}\nresults  {out / 'results.json'}, results.csv, {len(plots)} plots")


def kept(results: dict[str, Any], planned: int, out: Path) -> str:
    """What an unfinished run leaves."""
    return f"{len(results['trials'])} of {planned} trials are finished and kept in {out}"
