"""`spikeback bench`: every bench for real, as small as it gets, and what a mistake is answered with."""

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from spikeback.lab.bench import gate

SMALL = ["--width", "8", "--size", "16", "--classes", "5"]
RUNS = {
    "step": [*SMALL, "--time_steps", "2", "--batch", "2", "--arms", "ours float32", "floor float32"],
    "lif": ["--time_steps", "2", "--batch", "2", "--channels", "3", "--size", "8", "--arms", "ours Tri", "copy"],
    "convolution": ["--width", "32", "--time_steps", "1", "--batch", "2", "--arms", "ours, 32", "direct, 32"],
    "memory": [*SMALL, "--time_steps", "2", "--batch", "2", "--arms", "ours float32"],
    "inference": [*SMALL, "--time_steps", "2", "--batch", "2", "--arms", "stripped float32"],
    "branches": [*SMALL, "--time_steps", "2", "--batch", "2", "--arms", "by stage float32, ResNet-18"],
    "scaling": [*SMALL, "--time_steps", "2", "--batch", "2", "--arms", "T"],
}
FEW = ["--repetitions", "2", "--threads", "1"]


@pytest.mark.parametrize("bench", RUNS)
def test_bench_measures_shows_and_writes(
    bench: str, command: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
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


@pytest.mark.skipif(sys.prefix == sys.base_prefix, reason="this Python may have the peers")
def test_python_without_the_peers_is_one_line(refused: Callable[..., str]) -> None:
    line = refused("bench", "step", "--peers", sys.executable)
    assert f"--peers: {sys.executable} has no spikingjelly, snntorch, norse" in line
