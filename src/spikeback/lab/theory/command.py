"""Compare the theory of a block's gradient gain with measurement, on untrained networks: table, JSON, two figures.

The gain of every block of Spiking ResNet-18 and 34 under the surrogates of Eq. 4, and the phase diagram: gain of an
identity block against the surrogate's height and the threshold. docs/doctor.md says what the theory is.
"""

import json
from typing import Any

import torch
from jsonargparse import ArgumentParser
from rich.console import Console
from rich.table import Table

from spikeback.data import DataConfig, DataModule
from spikeback.doctor.theory.mean_field import relu_mean_field
from spikeback.errors import UsageError
from spikeback.files import as_path, write_atomic
from spikeback.lab.theory.phases import (
    HEIGHTS,
    MODELS,
    PHASES,
    SURROGATES,
    THRESHOLDS,
    agreement,
    gains,
    identity_blocks,
    phases,
)
from spikeback.lab.theory.plots import gain_scatter, phase_diagram
from spikeback.report.plots.style import save
from spikeback.report.terminal import TerminalTable

SCHEMA = 1
RELU_BLOCKS = 16  # identity blocks of the ReLU twin whose gains are written


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("--samples", type=int, default=64, help="images of the embedded set that are looked at")
    parser.add_argument("--size", type=int, default=16, help="their height and width")
    parser.add_argument("--width", type=int, default=16, help="channels of the first stage")
    parser.add_argument("--out", type=str, help="folder for theory.json, gains.png, phases.png (and .svg)")


def run(config: Any, console: Console, command: str) -> None:
    for name in ("samples", "size", "width"):
        if config[name] < 8:
            raise UsageError(f"--{name} must be at least 8, not {config[name]}")
    data = DataModule(DataConfig(name="embedded", size=config.size, batch_size=1), 0)
    data.setup()
    x, y = data.probe(config.samples)
    torch.manual_seed(0)
    nets, diagram = [], []
    with console.status("") as status:
        for net in gains(x, y, width=config.width):
            nets.append(net)
            status.update(f"gains: {len(nets)} of {2 * len(MODELS) * len(SURROGATES) * len(THRESHOLDS)} networks")
        for line in phases(x, y, width=config.width):
            diagram.append(line)
            status.update(f"phase diagram: {len(diagram)} of {len(PHASES)} thresholds, {len(HEIGHTS)} networks each")
    found = agreement(nets)
    console.print(_table(nets))
    console.print(
        f"Theory over measurement, {found['blocks']} blocks: median {found['median']:.2f}, {found['lowest']:.2f} to "
        f"{found['highest']:.2f}; within a factor of 2: {found['within_factor_2']:.0%}.\n"
        "Critical height of the triangle: "
        + ", ".join(f"{line['critical']:.3f} at threshold {line['threshold']:g}" for line in diagram),
        soft_wrap=True,
    )
    if config.out:
        out, facts = as_path(config.out), {"schema": SCHEMA, "command": command, "agreement": found}
        facts |= {"identity_blocks": identity_blocks(), "relu": relu_mean_field(RELU_BLOCKS)}
        facts |= {"phases": diagram, "networks": nets}
        write_atomic(out / "theory.json", json.dumps(facts, indent=1, allow_nan=False).encode())
        save(gain_scatter(_by_surrogate(nets)), out, "gains")
        save(phase_diagram(diagram, [point for line in diagram for point in line["measured"]]), out, "phases")
        console.print(f"written  {out / 'theory.json'}, gains and phases (png, svg)", soft_wrap=True)


def _by_surrogate(nets: list[dict[str, Any]]) -> list[tuple[str, dict[str, Any]]]:
    """Blocks of all networks with one surrogate and threshold together."""
    kinds: dict[str, dict[str, Any]] = {}
    for net in nets:
        name = f"{net['surrogate'].partition('(')[0]}, threshold {net['threshold']:g}"
        kinds.setdefault(name, {"blocks": []})["blocks"] += net["blocks"]
    return [*kinds.items()]


def _table(nets: list[dict[str, Any]]) -> TerminalTable:
    table = Table(title="gain of a block by theory over measured: median (lowest to highest)")
    for column in ("network", "surrogate", "V_th", "T", "theory / measured"):
        table.add_column(column, no_wrap=column in ("V_th", "T"))
    for net in nets:
        found = agreement([net])
        row = f"{found['median']:.2f} ({found['lowest']:.2f} to {found['highest']:.2f})"
        table.add_row(net["model"], net["surrogate"], f"{net['threshold']:g}", str(net["time_steps"]), row)
    return TerminalTable(table)
