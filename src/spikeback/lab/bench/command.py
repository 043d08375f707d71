"""Measure how fast things run on this machine."""

import json
from typing import Any, Literal, get_type_hints

import torch
from jsonargparse import ArgumentParser
from rich.console import Console
from rich.table import Table

from spikeback.data import DataConfig
from spikeback.errors import UsageError
from spikeback.files import as_path, write_atomic
from spikeback.lab.bench.plans import Machine, Plan
from spikeback.report.terminal import TerminalTable
from spikeback.train import TrainConfig

DATA = """Train ResNet-20 (He) for a few steps and print which share of the time it waits for data.

Network and options are those of `spikeback fit`; plain training, T = 2 or, of frames of events, as many as these are.
Less than 5 % is expected.
"""
# action: what it does, and its sizes with their defaults; a list is an axis
RACES: dict[str, tuple[str, dict[str, Any]]] = {
    "step": (
        "A training step: ours, its convolutions alone, the same ResNet with ReLU, other frameworks.",
        {"width": 64, "time_steps": 4, "batch": 32, "size": 32, "classes": 10},
    ),
    "lif": (
        "LIF neurons alone, forward and backward, against a copy of memory.",
        {"time_steps": 4, "batch": 32, "channels": 64, "size": 32},
    ),
    "convolution": (
        "The 3x3 convolutions of ResNet-18's stages, ours against PyTorch's.",
        {"width": 64, "time_steps": 4, "batch": 32, "size": 32},
    ),
    "memory": (
        "Peak memory and time of a training step against T.",
        {"width": 64, "time_steps": [2, 4, 8, 16], "batch": 32, "size": 32, "classes": 10},
    ),
    "inference": (
        "Latency and throughput of the plain network in eval mode.",
        {"width": 64, "time_steps": 4, "batch": [1, 32], "size": 32, "classes": 10},
    ),
    "branches": (
        "Time, memory, parameters and MACs of a training step: no branches, one a stage, one a residual block.",
        {"width": 64, "time_steps": 4, "batch": 32, "size": 32, "classes": 10},
    ),
    "scaling": (
        "Time of a training step against T, and against the batch.",
        {"width": 64, "time_steps": [1, 2, 4, 8, 16], "batch": [8, 16, 32, 64], "size": 32, "classes": 10},
    ),
}
Device = Literal["auto", "cpu", "cuda"]
ALONE = ("convolution", "branches", "scaling")  # ours only, no peers
HELP = {
    "width": "channels of the first stage",
    "time_steps": "T",
    "batch": "images in a batch",
    "size": "height and width of the images",
    "classes": "K",
    "channels": "channels",
    "repetitions": "repetitions of every arm; 30 where a few percent matter",
}


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
    for action, (what, sizes) in RACES.items():
        race = type(parser)(description=f"{what} docs/bench.md says how it is measured.")
        for name, default in {**sizes, "repetitions": 10}.items():
            many: Any = {"nargs": "+"} if isinstance(default, list) else {}
            race.add_argument(f"--{name}", type=int, default=default, help=HELP[name], **many)
        race.add_argument("--threads", type=int, help="threads of the processor; empty leaves PyTorch's choice")
        if action != "convolution":  # whose kernels are the processor's
            race.add_argument("--device", type=Device, default="auto", help="auto: a GPU if there is one")
        if action not in ALONE:
            race.add_argument(
                "--peers", type=str, help="Python with the peers (default: benchmarks/.venv, if it exists)"
            )
        race.add_argument("--arms", nargs="+", default=[], help="only arms whose names begin so, e.g. 'ours' 'floor'")
        race.add_argument("--out", type=str, help="a JSON file to write the figures to; a plot goes beside it")
        actions.add_subcommand(action, race, help=what)


def run(config: Any, console: Console, command: str) -> None:
    options = config[config.action]
    for name, value in options.as_dict().items():
        for number in value if isinstance(value, list) else [value]:
            if isinstance(number, int) and not isinstance(number, bool) and number < 1:
                raise UsageError(f"--{name} must be at least 1, not {number}")
    if options.threads:
        torch.set_num_threads(options.threads)
    if config.action == "data":
        return _data(options, console)
    _race(config.action, options.as_dict(), console, command)


def _race(action: str, options: dict[str, Any], console: Console, command: str) -> None:
    from spikeback.lab.bench import measure, plans
    from spikeback.lab.bench.peers import interpreter
    from spikeback.lab.bench.show import show
    from spikeback.train.environment import resolve_precision

    options["threads"] = torch.get_num_threads()
    options["device"] = device = chosen_device(options.get("device", "cpu"))
    precision = resolve_precision("auto", device)
    peers = None if action in ALONE else interpreter(options.get("peers"))
    sizes = {name: options[name] for name in RACES[action][1]}
    plan = chosen(getattr(plans, action)(Machine(precision == "bf16-mixed", peers, device), **sizes), options["arms"])
    plan = plan.on_gpu() if device == "cuda" else plan
    recorded = {name: value for name, value in options.items() if name not in ("out", "peers")}
    with console.status("") as status:
        results = measure.measure(action, plan, recorded, command, precision, lambda text: status.update(f"{text} ..."))
    show(results, console)
    if options["out"]:
        for path in measure.write(results, as_path(options["out"])):
            console.print(f"written  {path}", soft_wrap=True)


def chosen_device(device: str) -> str:
    """Where to measure. Raises UsageError for a GPU that is not there."""
    if device == "cuda" and not torch.cuda.is_available():
        raise UsageError("--device cuda: PyTorch finds no GPU here; choose from auto, cpu")
    return ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device


def chosen(plan: Plan, beginnings: list[str]) -> Plan:
    """The plan with only the arms whose names begin so. Raises UsageError if one stands for no arm."""
    for beginning in beginnings:
        if not any(arm.name.startswith(beginning) for arm in plan.arms):
            names = ", ".join(arm.name for arm in plan.arms)
            raise UsageError(f"--arms: no arm begins with {beginning!r}; choose from {names}")
    if beginnings:
        plan.arms = [arm for arm in plan.arms if arm.name.startswith(tuple(beginnings))]
    return plan


def _data(options: Any, console: Console) -> None:
    from spikeback.lab.bench.waiting import EXPECTED, waiting

    figures = waiting(DataConfig(**options.data.as_dict()), options.steps, options.precision)
    table = Table(title=f"{figures['dataset']}, batches of {figures['batch_size']}, {figures['num_workers']} workers")
    for column in ("step ms", "of it waiting for data ms", "share", "expected"):
        table.add_column(column, justify="right", no_wrap=True)
    step, waited, share = (figures[name] for name in ("step_ms", "wait_ms", "share"))
    table.add_row(f"{step:.1f}", f"{waited:.2f}", f"{share:.1%}", f"< {EXPECTED:.0%}")
    console.print(TerminalTable(table))
    text = json.dumps(figures, indent=1)
    console.print_json(text)
    if options.out:
        write_atomic(options.out, text)
