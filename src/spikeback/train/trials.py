"""Trials: methods x seeds on one recipe, each resumable, the results written anew after every one."""

import json
import os
import time
import warnings
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import lightning as L
import torch
import yaml
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import Logger, TensorBoardLogger
from safetensors.torch import save as safetensors_bytes

from spikeback.data import DataModule, DataSet
from spikeback.data.ranks import ProcessRank
from spikeback.doctor.callback import DoctorCallback
from spikeback.errors import UsageError, WriteError
from spikeback.files import as_path, write_atomic
from spikeback.lock import alone, is_used
from spikeback.train.checkpoint import BEST, LAST, AtomicCheckpointIO, Checkpoints, EventLog, read_checkpoint
from spikeback.train.environment import environment, resolve_precision
from spikeback.train.processes import OwnSignals, own_rank, placement, quietly, together
from spikeback.train.recipe import Method, Recipe
from spikeback.train.record import regime_record, trial_record
from spikeback.train.results import SCHEMA, check_resumable, read_results, write_results
from spikeback.train.resume import keep_best, resume_point
from spikeback.train.start import add_branches, build_network
from spikeback.train.task import Task

SEEDS = 2**32  # what torch, NumPy and Lightning all take


@dataclass
class Run:
    """One folder of trials.

    Args:
        recipe: what all trials share.
        out: the folder; each trial has its own inside.
        kind, command: noted in the results.
        listeners: called with the results after every trial.
        callbacks: Lightning callbacks for a trial, given its method and seed.
        say: called with a line on a checkpoint that was damaged, and what is done about it; on what calibration missed.
    """

    recipe: Recipe
    out: Path
    kind: Literal["compare", "fit"] = "compare"
    command: str = ""
    listeners: Iterable[Callable[[dict[str, Any]], None]] = ()
    callbacks: Callable[[Method, int], list[Callback]] = lambda method, seed: []
    say: Callable[[str], None] = warnings.warn
    images: DataSet | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        self.out = as_path(self.out)

    def folder(self, method: Method, seed: int) -> Path:
        return self.out / f"{method.slug}-seed{seed}"

    @cached_property
    def process(self) -> ProcessRank:
        """What falls to this process, where several train; the first writes."""
        return own_rank(self.recipe.train)

    @property
    def writes(self) -> bool:
        """Whether this is the process that writes: the only one, or the first."""
        return self.process.rank == 0

    def alone(self) -> AbstractContextManager[None]:
        """Within, no other training writes to the folder; the other processes of this one write nothing."""
        return alone(self.out, self.command) if self.writes else nullcontext()

    def data(self, seed: int) -> DataModule:
        """The data of one trial; the images are read once for all."""
        module = DataModule(self.recipe.data, seed, self.images, self.recipe.train.best_on == "test", self.process)
        module.setup()
        self.images = module.images
        return module


def compare(run: Run, methods: list[Method], seeds: list[int], resume: bool = False) -> dict[str, Any]:
    """Train every method with every seed and return the results (docs/results.md). All arms share initial weights,
    batches, augmentation, learning rate and budget.

    Raises:
        UsageError: the folder holds results of another recipe, or any, without `resume`; another process trains there.
        TrainingError: a loss is no longer finite; finished trials stay.
        WriteError: a file cannot be written; finished trials stay, and what a trial under way has on the disk.
    """
    with run.alone():
        return _compare(run, methods, seeds, resume)


def _compare(run: Run, methods: list[Method], seeds: list[int], resume: bool) -> dict[str, Any]:
    trials = trials_of(methods, seeds)
    if run.recipe.train.threads:
        torch.set_num_threads(run.recipe.train.threads)
        if run.process.world_size > 1:  # else Lightning divides the processors among them
            os.environ["OMP_NUM_THREADS"] = str(run.recipe.train.threads)
    results = _open(run, methods, seeds, resume)
    _tell(run, results)
    finished = {(t["method"], t["seed"]) for t in results["trials"]}
    for method, seed in trials:
        if (method.name, seed) in finished:
            continue
        started = time.perf_counter()
        try:
            results["trials"].append(run_trial(run, method, seed, resume))
        except BaseException:  # an interrupted trial took its time as well
            with suppress(WriteError):  # not what ended it
                _save(run, results, started)
            raise
        _save(run, results, started)
    return results


def trials_of(methods: list[Method], seeds: list[int]) -> list[tuple[Method, int]]:
    """The trials, in order. Raises UsageError if there are none, one comes twice, or a seed is out of range."""
    for name, values in {"methods": [method.name for method in methods], "seeds": seeds}.items():
        if not values or len(set(values)) < len(values):
            raise UsageError(f"{name}: needs at least one, each once, got {values}")
    for seed in seeds:
        if not 0 <= seed < SEEDS:
            raise UsageError(f"seeds: a seed must lie in 0 .. {SEEDS - 1}, not {seed}")
    return [(method, seed) for seed in seeds for method in methods]


def run_trial(run: Run, method: Method, seed: int, resume: bool = False) -> dict[str, Any]:
    """Train one method with one seed, from its last whole checkpoint if it may `resume`. Returns the trial's record."""
    recipe, folder = run.recipe, run.folder(method, seed)
    data = run.data(seed)
    torch.manual_seed(seed)
    net = build_network(recipe.model, len(data.classes), data.channels, data.time_steps)
    task = Task(
        add_branches(net, recipe.branches), method.schedule, recipe.branches, recipe.train, seed,
        data.probe(recipe.train.probe), run.say if run.writes else lambda _: None,
    )  # fmt: skip
    card = {
        "recipe": recipe.as_dict(),
        "method": method.name,
        "seed": seed,
        "classes": list(data.classes),
        "shape": list(data.shape),
        "mean": data.mean.tolist(),
        "std": data.std.tolist(),
    }
    log = EventLog(folder / "events.jsonl" if run.writes else None, method, seed, data.augmented)

    def tell(line: str) -> None:
        run.say(line)
        log.write("recovered", message=line)

    start = resume_point(folder, recipe, tell if run.writes else None) if resume else None
    every, notify = recipe.train.doctor, lambda row: log.write("doctor", **row)
    doctor = [DoctorCallback(every, *data.probe(recipe.train.probe), notify=notify)] if every else []
    fit(task, data, recipe, [*doctor, log, Checkpoints(folder, card), *run.callbacks(method, seed)], folder, start)
    if run.writes:
        keep_best(folder, folder / LAST, tell)
    record = trial_record(task, data, method, seed) | ({"doctor": doctor[0].record} if doctor else {})
    log.write(
        "finished", **{k: v for k, v in record.items() if k not in ("history", "gradients", "calibration", "doctor")}
    )
    if not run.writes:
        return record
    plain = read_checkpoint(folder / BEST).net
    plain = {name: value.contiguous() for name, value in plain.items()}  # all that the format knows
    write_atomic(folder / "net.safetensors", safetensors_bytes(plain, {"card": json.dumps(card)}))
    return record


def fit(
    task: Task,
    data: DataModule,
    recipe: Recipe,
    callbacks: list[Callback],
    folder: Path,
    checkpoint: Path | None = None,
) -> None:
    """Run Lightning's trainer on a task, quietly."""
    with quietly():
        trainer = L.Trainer(
            max_epochs=recipe.train.epochs,
            precision=resolve_precision(recipe.train.precision),  # pyright: ignore[reportArgumentType]
            deterministic=recipe.train.deterministic,
            **placement(recipe.train),
            callbacks=[*callbacks, OwnSignals()],
            plugins=[AtomicCheckpointIO()],
            default_root_dir=folder,
            logger=_tensorboard(folder) if recipe.train.tensorboard else False,
            num_sanity_val_steps=0,
            enable_progress_bar=False,
            enable_model_summary=False,
            log_every_n_steps=1,
        )
        loaders = [data.val_dataloader(), data.test_dataloader()]
        with together(trainer):
            trainer.fit(task, data.train_dataloader(), loaders, ckpt_path=checkpoint, weights_only=True)


def _tensorboard(folder: Path) -> Logger:
    try:
        return TensorBoardLogger(folder.parent, folder.name, version="tensorboard")
    except ModuleNotFoundError as error:
        raise UsageError("train.tensorboard needs a package: pip install tensorboard") from error


def _open(run: Run, methods: list[Method], seeds: list[int], resume: bool) -> dict[str, Any]:
    """Results to add to: those in the folder when resuming (more methods and seeds may join), else new ones."""
    path, recipe = run.out / "results.json", run.recipe
    if not run.writes:  # the first process checks and writes; what is finished is known to both
        return read_results(path) if resume and path.is_file() else {"trials": [], "seconds": 0.0}
    plan = [{"method": method.name, "seed": seed} for seed in seeds for method in methods]
    data = run.data(seeds[0])
    data.val_dataloader()  # what cannot work fails here, before anything is written
    if recipe.train.tensorboard:
        _tensorboard(run.out)
    made = environment(resolve_precision(recipe.train.precision), run.process.world_size)
    if resume and path.is_file():
        results = read_results(path)
        check_resumable(results, recipe, data.describe(), made, run.out)
        results["planned"] += [trial for trial in plan if trial not in results["planned"]]
        return results
    if not resume and is_used(run.out):
        raise UsageError(
            f"out={run.out} is not empty: add resume=True if it holds a run of this recipe, or name another folder"
        )
    regime = regime_record(recipe, data, seeds[0])
    results = {
        "schema": SCHEMA,
        "kind": run.kind,
        "title": recipe.title,
        "command": run.command,
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "seconds": 0.0,
        "planned": plan,
        "config": recipe.as_dict(),
        "dataset": data.describe(),
        "regime": regime,
        "environment": made,
        "trials": [],
    }
    write_atomic(run.out / "config.yaml", yaml.safe_dump(recipe.as_dict(), sort_keys=False).encode())
    _save(run, results)
    return results


def _save(run: Run, results: dict[str, Any], started: float | None = None) -> None:
    results["seconds"] += time.perf_counter() - started if started else 0.0
    if run.writes:
        write_results(results, run.out / "results.json")
    _tell(run, results)


def _tell(run: Run, results: dict[str, Any]) -> None:
    for listener in run.listeners if run.writes else ():
        listener(results)
