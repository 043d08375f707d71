"""`spikeback bench`: every bench for real, as small as it gets, and what a mistake is answered with."""

import io
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from spikeback.lab.bench import gate, race, worker

pytestmark = pytest.mark.slow

SMALL = ["--width", "8", "--size", "16", "--classes", "5"]
RUNS = {
    "step": [*SMALL, "--time_steps", "2", "--batch", "2", "--arms", "ours float32", "floor float32"],
    "lif": ["--time_steps", "2", "--batch", "2", "--channels", "3", "--size", "8", "--arms", "ours Tri", "reference"],
    "convolution": ["--width", "32", "--time_steps", "1", "--batch", "2", "--arms", "ours, 32", "direct, 32"],
    "memory": [*SMALL, "--time_steps", "2", "--batch", "2", "--arms", "ours float32"],
    "inference": [*SMALL, "--time_steps", "2", "--batch", "2", "--arms", "stripped float32"],
    "branches": [*SMALL, "--time_steps", "2", "--batch", "2", "--arms", "by stage float32, ResNet-18"],
    "scaling": [*SMALL, "--time_steps", "2", "--batch", "2", "--arms", "T"],
}
FEW = ["--repetitions", "2", "--threads", "1"]


class Here:
    """An arm's process that is none: the same work and the same answers, without the imports of a new Python."""

    def __init__(self, arm: race.Arm, threads: int, device: str) -> None:
        spec = {key: getattr(arm, key) for key in ("factory", "options", "small", "allocator")} | {"device": device}
        answers = io.StringIO()
        worker.main(spec, io.StringIO("\n" * 2), answers)
        self.lines = iter(answers.getvalue().splitlines())

    def answer(self) -> dict[str, Any]:
        return json.loads(next(self.lines))

    repetition = answer

    def __enter__(self) -> "Here":
        return self

    def __exit__(self, *_: object) -> None:
        pass


@pytest.mark.parametrize("bench", RUNS)
def test_bench_measures_shows_and_writes(
    bench: str, command: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if bench != "memory":  # one arm; tests/lab/bench/test_race.py has more of processes
        monkeypatch.setattr(race, "Process", Here)
        monkeypatch.setattr(worker, "LEAST", 0.01)
    monkeypatch.setattr(gate, "green", lambda device: "all green")
    monkeypatch.setenv("COLUMNS", "140")
    out = tmp_path / f"{bench}.json"
    outcome = command("bench", bench, *RUNS[bench], *FEW, "--out", out)
    assert outcome.code == 0, outcome
    results = json.loads(out.read_text())
    assert results["command"].startswith(f"spikeback bench {bench} ")
    assert results["checked"] == "all green"
    assert results["options"]["repetitions"] == 2
    assert results["environment"]["threads"] == 1
    for arm in results["arms"]:
        assert len(arm["seconds"]) == len(arm["peak_bytes"]) == 2, arm
        assert arm["name"] in outcome.out
    assert out.with_suffix(".png").is_file()
    assert "checked: all green" in outcome.out


def test_red_tests_are_one_line_and_no_figure(
    refused: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "tests/ops").mkdir(parents=True)
    (tmp_path / "tests/nn").mkdir()
    (tmp_path / "tests/ops/test_lif.py").write_text("def test_fused_equals_reference(): assert False")
    monkeypatch.setattr(gate, "PACKAGE", tmp_path / "src")
    line = refused("bench", "step", *RUNS["step"], *FEW, "--out", tmp_path / "step.json", code=1)
    assert "test_fused_equals_reference" in line
    assert not (tmp_path / "step.json").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["step", "--repetitions", "0"], "--repetitions must be at least 1, not 0"),
        (["step", "--width", "-4"], "--width must be at least 1, not -4"),
        (["memory", "--time_steps", "2", "0"], "--time_steps must be at least 1, not 0"),
        (["lif", "--threads", "0"], "--threads must be at least 1, not 0"),
        (["step", "--repetitions", "ten"], "ten"),
        (["step", "--device", "cuda"], "--device cuda: PyTorch finds no GPU here; choose from auto, cpu"),
        (["step", "--peers", "gone/python"], "--peers: gone/python is no Python that runs; `make benchmarks/.venv/re"),
        (["step", "--arms", "theirs"], "--arms: no arm begins with 'theirs'; choose from ours float32, floor float32"),
        (["scaling", "--arms", "T", "X"], "--arms: no arm begins with 'X'; choose from T = 1, T = 2"),
        (["step", "--skip-tests"], "--skip-tests"),
        (["lift"], "lift"),
    ],
)
def test_mistakes_are_one_line(words: list[str], said: str, refused: Callable[..., str]) -> None:
    assert said in refused("bench", *words)


@pytest.mark.parametrize(
    ("script", "lacks"),
    [
        (f'exec "{sys.executable}" -I -S "$@"', "torch, spikingjelly, snntorch, norse"),  # nothing that was installed
        ("""echo '["spikingjelly", "snntorch", "norse"]'""", "spikingjelly, snntorch, norse"),  # as one with PyTorch
    ],
)
def test_python_without_the_peers_is_one_line(
    script: str, lacks: str, refused: Callable[..., str], tmp_path: Path
) -> None:
    python = tmp_path / "python"
    python.write_text(f"#!/bin/sh\n{script}\n")
    python.chmod(0o755)
    assert f"--peers: {python} has no {lacks};" in refused("bench", "step", "--peers", python)
