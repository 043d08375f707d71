import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from spikeback.cli.main import main, with_sections

SMALL = ["--data.size", "8", "--data.batch_size", "16", "--data.limit", "64", "--precision", "32-true"]


def test_bench_data_prints_and_writes_the_share_of_waiting(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["bench", "data", *SMALL, "--steps", "2", "--out", str(tmp_path / "bench.json")])
    figures = json.loads((tmp_path / "bench.json").read_text())
    assert figures["dataset"] == "Fashion-MNIST, embedded subset"
    assert figures["share"] == pytest.approx(figures["wait_ms"] / figures["step_ms"])
    assert 0 < figures["share"] < 1
    assert f"{figures['share']:.1%}" in capsys.readouterr().out


@pytest.mark.parametrize("workers", [None, 1])
@pytest.mark.slow
def test_bench_data_of_frames(tmp_path: Path, draw_image: Callable[..., np.ndarray], workers: int | None) -> None:
    for i in range(24):
        draw_image(f"set/{i % 2}/{i}.png")
    options = ["--data", "simulated-dvs", "--data.events.source", "folder", "--data.root", str(tmp_path / "set")]
    options += ["--data.size", "12", "--data.events.sensor", "16", "--data.batch_size", "4", "--precision", "32-true"]
    options += ["--data.events.time_steps", "3", "--steps", "2", "--out", str(tmp_path / "bench.json")]
    main(["bench", "data", *options, *(["--data.num_workers", str(workers)] if workers else [])])
    figures = json.loads((tmp_path / "bench.json").read_text())
    assert (figures["dataset"], figures["shape"]) == ("simulated DVS of set", [3, 2, 12, 12])
    assert (figures["num_workers"], figures["batch_size"]) == (workers or 0, 4)
    assert 0 < figures["share"] < 1


def test_bench_data_without_steps_is_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["bench", "data", *SMALL, "--steps", "0"])
    assert capsys.readouterr().err == "error: --steps must be at least 1, not 0\n"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--threads", "-3"], "--threads must be at least 1, not -3"),
        (["--threads", "0"], "--threads must be at least 1, not 0"),
        (["--precision", "foo"], "32-true"),
    ],
)
def test_mistakes_are_one_line(words: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["bench", "data", *SMALL[:-2], *words])
    error = capsys.readouterr().err
    assert stop.value.code == 2
    assert said in error
    assert words[1] in error
    assert error.count("\n") == 1


def test_data_takes_a_name(tmp_path: Path) -> None:
    options = tmp_path / "data.yaml"
    options.write_text("batch_size: 7\nevents.time_steps: 3")
    assert with_sections(["fit", "--data", "cifar10", "--seed", "1"]) == [
        "fit", "--data.name", "cifar10", "--seed", "1",
    ]  # fmt: skip
    assert with_sections(["--data=tonic:NMNIST"]) == ["--data.name=tonic:NMNIST"]
    assert with_sections(["--data", "{name: cifar10}"]) == ["--data", "{name: cifar10}"]
    inside = '{"batch_size": 7, "events": {"time_steps": 3}}'
    assert with_sections(["--data", str(options)]) == ["--data", inside]
    assert with_sections([f"--data={options}"]) == [f"--data={inside}"]


def test_an_unknown_name_lists_the_choices(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["fit", "--data", "cifar"])
    said = capsys.readouterr().err
    assert "'cifar' is unknown (did you mean 'cifar10'?); choose from embedded, fashion-mnist, folder, cifar10" in said
    assert said.count("\n") == 1
