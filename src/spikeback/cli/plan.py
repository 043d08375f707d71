"""How long a study will take: one training step of each network in it, timed here and now, times their number."""

import time
from collections.abc import Callable

import torch
from rich import box
from rich.table import Table
from rich.text import Text

from spikeback.data import DataModule
from spikeback.losses import Loss
from spikeback.report.terminal import TerminalTable
from spikeback.train import Method, Recipe
from spikeback.train.cell import Cell
from spikeback.train.environment import resolve_precision
from spikeback.train.results import flat
from spikeback.train.start import add_branches, build_network
from spikeback.train.trials import Run
from spikeback.values import from_text

TIMED = 5  # steps, after one that warms up; others use the machine as well, so the fastest counts
FREE = (
    "title",
    "train.lr",
    "train.momentum",
    "train.weight_decay",
    "train.calibrate",
    "train.optimizer",
    "train.epochs",
)
CAPTION = (
    "Minutes: a step and a forward pass of each network, the fastest of 5 here and now, times their number. Not in it: "
    "start and report of a run, gradient probes, and that runs at the same time slow each other down."
)


def expect(cells: list[Cell]) -> list[tuple[int, float]]:
    """For each cell the number of trials that it lacks, and the seconds they will take, one at a time."""
    known: dict[str, float] = {}
    runs: dict[str, Run] = {}  # by data, whose samples are read once
    expected = []
    for cell in cells:
        missing, seconds = cell.missing(), 0.0
        for name, seed in missing:
            weight = Method.from_text(name).schedule(0.0)
            key = repr([(k, v) for k, v in flat(cell.recipe.as_dict()).items() if k not in FREE] + [bool(weight)])
            if key not in known:
                run = runs.setdefault(repr(cell.recipe.data), Run(cell.recipe, cell.folder))
                known[key] = epoch_seconds(cell.recipe, run.data(seed), weight)
            seconds += cell.recipe.train.epochs * known[key]
        expected.append((len(missing), seconds))
    return expected


def epoch_seconds(recipe: Recipe, data: DataModule, weight: float) -> float:
    """Seconds of one epoch: training with branches of this weight, and judging the held-out and test samples."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    precision = resolve_precision(recipe.train.precision)
    kind = {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}.get(precision)
    model = add_branches(
        build_network(recipe.model, len(data.classes), data.channels, data.time_steps), recipe.branches
    )
    model, loss_of = model.to(device), from_text(recipe.train.loss, Loss)
    optimiser = torch.optim.SGD(model.parameters(), recipe.train.lr, recipe.train.momentum)
    loader = data.train_dataloader()
    x, y = (t.to(device) for t in next(iter(loader)))

    def step() -> None:
        with torch.autocast(device.type, kind, enabled=kind is not None):
            loss = loss_of(*model.heads(x, weight, loss_of.per_step), weight, y)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()

    def judge() -> None:
        with torch.inference_mode(), torch.autocast(device.type, kind, enabled=kind is not None):
            model(x, per_step=False)

    before = torch.get_num_threads()
    torch.set_num_threads(recipe.train.threads or before)
    try:
        judged = (data.sizes["held_out"] + data.sizes["test"]) / data.process.world_size / len(y)
        return len(loader) * _timed(step) + judged * _timed(judge)
    finally:
        torch.set_num_threads(before)


def _timed(call: Callable[[], None]) -> float:
    times = []
    for _ in range(1 + TIMED):
        start = time.perf_counter()
        call()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        times.append(time.perf_counter() - start)
    return min(times[1:])


def plan_table(cells: list[Cell], jobs: int) -> TerminalTable:
    """Trials that are missing and their minutes: one row a cell; of several cells all, and all by `jobs` at a time."""
    table = Table(box=box.SIMPLE_HEAD, caption=CAPTION, caption_justify="left", show_edge=False, pad_edge=False)
    for axis in cells[0].point:
        table.add_column(Text(axis))
    for header in ("trials", "s/trial", "minutes"):
        table.add_column(header, justify="right", no_wrap=True)
    expected = expect(cells)
    for cell, (trials, seconds) in zip(cells, expected, strict=True):
        mean = f"{seconds / trials:.0f}" if trials else "–"
        table.add_row(*map(Text, cell.point.values()), str(trials), mean, f"{seconds / 60:.1f}")
    if len(cells) == 1:
        return TerminalTable(table)
    table.add_section()
    trials, seconds = (sum(column) for column in zip(*expected, strict=True))
    busy = [0.0] * jobs  # until when; the next run goes to the one that is free first
    for _, each in expected:
        busy[busy.index(min(busy))] += each
    blank = [""] * (len(cells[0].point) - 1)
    table.add_row("all", *blank, str(trials), "", f"{seconds / 60:.0f}")
    table.add_row(f"all, --jobs {jobs}", *blank, str(trials), "", f"{max(busy) / 60:.0f}")
    return TerminalTable(table)
