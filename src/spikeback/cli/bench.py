"""Measure how fast things run on this machine."""

import json
import statistics
import time
from pathlib import Path
from typing import Any, get_type_hints

import torch
from jsonargparse import ArgumentParser
from rich.console import Console
from rich.table import Table
from torch import nn

from spikeback.data import DataConfig, DataModule
from spikeback.errors import UsageError
from spikeback.files import write_atomic
from spikeback.train import ModelConfig, TrainConfig
from spikeback.train.environment import environment, resolve_precision

DATA = """Train ResNet-20 (He) for a few steps and print which share of the time it waits for data.

Network and options are those of `spikeback fit`; plain training, T = 2 or, of frames of events, as many as these are.
Less than 5 % is expected.
"""
WARM_UP = 3  # steps before the clock starts: worker processes and memory come up
EXPECTED = 0.05  # share of the time, at most


def add_arguments(parser: ArgumentParser) -> None:
    actions = parser.add_subcommands(dest="action", metavar="ACTION")
    data = type(parser)(description=DATA)
    data.add_class_arguments(DataConfig, "data")
    data.add_argument("--steps", type=int, default=20, help="training steps that are timed")
    data.add_argument(
        "--precision", type=get_type_hints(TrainConfig)["precision"], default="auto", help="as --train.precision"
    )
    data.add_argument("--threads", type=int, help="threads of the processor; empty leaves PyTorch's choice")
    data.add_argument("--out", type=str, help="a JSON file to write the figures to")
    actions.add_subcommand("data", data, help=DATA.split("\n")[0])


def run(config: Any, console: Console, command: str) -> None:
    options = config[config.action]
    if options.steps < 1:
        raise UsageError(f"--steps must be at least 1, not {options.steps}")
    if options.threads is not None and options.threads < 1:
        raise UsageError(f"--threads must be at least 1, not {options.threads}")
    if options.threads:
        torch.set_num_threads(options.threads)
    figures = waiting(DataConfig(**options.data.as_dict()), options.steps, options.precision)
    table = Table(title=f"{figures['dataset']}, batches of {figures['batch_size']}, {figures['num_workers']} workers")
    for column in ("step ms", "of it waiting for data ms", "share", "expected"):
        table.add_column(column, justify="right")
    step, waited, share = (figures[name] for name in ("step_ms", "wait_ms", "share"))
    table.add_row(f"{step:.1f}", f"{waited:.2f}", f"{share:.1%}", f"< {EXPECTED:.0%}")
    console.print(table)
    text = json.dumps(figures, indent=1)
    console.print_json(text)
    if options.out:
        write_atomic(Path(options.out), text.encode())


def waiting(config: DataConfig, steps: int, precision: str = "auto") -> dict[str, Any]:
    """Time `steps` optimiser steps of ResNet-20 (He) and, within them, the waits for the next batch; milliseconds."""
    data = DataModule(config, seed=0)
    data.setup()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.manual_seed(0)
    model = ModelConfig("spiking_resnet20_he", time_steps=2)
    net = model.build(len(data.classes), data.channels, data.time_steps).to(device).train()
    optimiser = torch.optim.SGD(net.parameters(), 0.1, 0.9)
    precision = resolve_precision(precision)
    kind = {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}.get(precision)
    loader = data.train_dataloader()
    batches = _endless(loader)
    waits, totals = [], []
    for _ in range(WARM_UP + steps):
        start = time.perf_counter()
        x, y = next(batches)
        waits.append(time.perf_counter() - start)
        with torch.autocast(device.type, kind, enabled=kind is not None):
            loss = nn.functional.cross_entropy(net(x.to(device)).mean(0), y.to(device))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        if device.type == "cuda":
            torch.cuda.synchronize()
        totals.append(time.perf_counter() - start)
    waits, totals = waits[WARM_UP:], totals[WARM_UP:]
    return {
        "dataset": data.describe()["name"],
        "shape": list(data.shape),
        "batch_size": config.batch_size,
        "num_workers": loader.num_workers,
        "auto_augment": config.auto_augment,
        "steps": steps,
        "step_ms": 1e3 * sum(totals) / steps,
        "step_median_ms": 1e3 * statistics.median(totals),
        "wait_ms": 1e3 * sum(waits) / steps,
        "share": sum(waits) / sum(totals),
        "expected": EXPECTED,
        "environment": environment(precision),
    }


def _endless(loader: Any) -> Any:
    epoch = 0
    while True:
        loader.sampler.set_epoch(epoch)
        yield from loader
        epoch += 1
