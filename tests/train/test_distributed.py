"""Trials on several processes, started by Lightning or by torchrun, are those of one process at the same batch."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from spikeback.cli.main import main
from spikeback.data.ranks import ProcessRank
from spikeback.errors import UsageError
from spikeback.files import write_atomic
from spikeback.train import TrainConfig
from spikeback.train.processes import own_rank

pytestmark = pytest.mark.slow

TRAIN, TEST = {"ankle": 40, "shirt": 40}, {"ankle": 7, "shirt": 6}  # an odd number of test images
UNDRAWN = """
from spikeback.cli import live
from spikeback.cli.main import main
from spikeback.files import write_atomic

live.save_plots = lambda results, out: []
live.write_report = lambda results, path: write_atomic(path, b"")
if __name__ == "__main__":
    main()
"""  # the command without its plots, which take longer than a training
TORCHRUN = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")


@pytest.fixture(scope="module")
def options(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """`compare` on a few images: 2 epochs of 2 steps."""
    root, rng = tmp_path_factory.mktemp("images"), np.random.default_rng(0)
    for part, counts in {"train": TRAIN, "test": TEST}.items():
        for label, count in counts.items():
            (root / part / label).mkdir(parents=True)
            for i in range(count):
                pixels = rng.integers(0, 256, (8, 8), dtype=np.uint8)
                Image.fromarray(pixels).save(root / part / label / f"{i}.png")
    return [
        "compare", "--data.name", "folder", "--data.root", str(root), "--data.size", "8", "--data.batch_size", "32",
        "--model.name", "spiking_resnet20_he", "--model.width", "2", "--model.time_steps", "1", "--model.surrogate",
        "Triangle(1.0)", "--train.epochs", "2", "--train.precision", "32-true", "--train.probe", "16", "--seeds", "0",
    ]  # fmt: skip


def call(*words: str) -> subprocess.CompletedProcess[str]:
    env = os.environ | {"OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    return subprocess.run([sys.executable, *words], env=env, capture_output=True, text=True, timeout=600)


@pytest.fixture(scope="module")
def script(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The file of a program that Lightning and torchrun can start again."""
    path = tmp_path_factory.mktemp("script") / "undrawn.py"
    path.write_text(UNDRAWN)
    return str(path)


@pytest.fixture(scope="module")
def one(options: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of one process, this one. Not to be changed."""
    out = tmp_path_factory.mktemp("one") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("spikeback.cli.live.save_plots", lambda results, out: [])
        patch.setattr("spikeback.cli.live.write_report", lambda results, path: write_atomic(path, b""))
        main([*options, "--methods", "vanilla", "evolutionary", "--out", str(out)])
    return out


def assert_same_run(out: Path, one: Path) -> None:
    """The same files; losses and accuracies agree; each thing that happened is told once."""
    assert {p.relative_to(out) for p in out.rglob("*")} == {p.relative_to(one) for p in one.rglob("*")}
    results, expected = (json.loads((folder / "results.json").read_text()) for folder in (out, one))
    assert [trial["method"] for trial in results["trials"]] == ["vanilla", "evolutionary"]
    for trial, other in zip(results["trials"], expected["trials"], strict=True):
        assert trial["steps"] == other["steps"] == 4
        assert trial["history"].keys() == other["history"].keys()
        for name, values in trial["history"].items():
            assert values == pytest.approx(other["history"][name], abs=1e-4), name
        assert trial["history"]["train_loss"][0] == pytest.approx(other["history"]["train_loss"][0], abs=1e-5)
        lines = (out / f"{trial['method']}-seed0" / "events.jsonl").read_text().splitlines()
        assert [json.loads(line)["event"] for line in lines] == ["started", "epoch", "epoch", "finished"]


def test_two_processes_that_lightning_starts(options: list[str], one: Path, script: str, tmp_path: Path) -> None:
    words = [*options, "--methods", "vanilla", "evolutionary", "--train.devices", "2", "--out", str(tmp_path / "run")]
    done = call(script, *words)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("report ") == 1
    assert not done.stderr
    assert_same_run(tmp_path / "run", one)


def test_two_processes_of_torchrun_resume_what_one_began(
    options: list[str], one: Path, script: str, tmp_path: Path
) -> None:
    out = Path(shutil.copytree(one, tmp_path / "run"))
    results = json.loads((out / "results.json").read_text())
    results["trials"] = [trial for trial in results["trials"] if trial["method"] == "vanilla"]
    (out / "results.json").write_text(json.dumps(results))
    shutil.rmtree(out / "evolutionary-seed0")
    before = (out / "vanilla-seed0" / "last.ckpt").stat().st_mtime_ns
    words = [*options, "--methods", "vanilla", "evolutionary", "--train.devices", "2", "--out", str(out), "--resume"]
    done = call(*TORCHRUN, script, *words)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("report ") == 1
    assert (out / "vanilla-seed0" / "last.ckpt").stat().st_mtime_ns == before
    assert_same_run(out, one)
    assert json.loads((out / "results.json").read_text())["resumed"][0]["environment"]["processes"] == 2


def test_error_of_two_processes_is_told_once(options: list[str], tmp_path: Path) -> None:
    words = ["--methods", "evolutionary", "--train.devices", "2", "--train.lr", "1e30", "--out", str(tmp_path / "run")]
    done = call("-m", "spikeback", *options, *words)
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1
    assert done.stderr.startswith("error: the ")


def test_accumulated_parts_are_the_batch(
    train: Callable[..., Any], make_recipe: Callable[..., Any], watch: Callable[[], Any]
) -> None:
    whole, parts = watch(), watch()
    record = train("evolutionary", make_recipe(epochs=2), whole, out="whole")
    other = train("evolutionary", make_recipe(epochs=2, accumulate=2), parts, out="parts")
    assert record["steps"] == other["steps"] == 8
    assert [value for value in whole.lambdas for _ in range(2)] == parts.lambdas
    assert [value for value in whole.rates for _ in range(2)] == parts.rates
    assert len(parts.batches) == 2 * len(whole.batches) == 16
    for i, (x, y) in enumerate(whole.batches):
        pair = parts.batches[2 * i : 2 * i + 2]
        assert torch.equal(torch.cat([part for part, _ in pair]), x)
        assert torch.equal(torch.cat([labels for _, labels in pair]), y)
    assert other["history"]["train_loss"][0] == pytest.approx(record["history"]["train_loss"][0], rel=0.2)


@pytest.mark.parametrize(("processes", "accumulate"), [(1, 1), (2, 1), (3, 2)])
def test_shares_together_are_the_batches(processes: int, accumulate: int) -> None:
    order, batch = np.random.default_rng(0).permutation(40), 12
    shares = [ProcessRank(rank, processes, accumulate) for rank in range(processes)]
    parts = [share.of_order(order, batch).reshape(3, -1) for share in shares]  # steps, samples
    assert {part.shape[1] for part in parts} == {batch // processes}
    for step in range(3):
        together = np.concatenate([part[step] for part in parts])
        assert sorted(together) == sorted(order[step * batch : (step + 1) * batch])
    judged = torch.cat([share.of_all(torch.arange(41)) for share in shares])
    assert sorted(judged.tolist()) == list(range(41))


@pytest.mark.parametrize("options", [{"devices": 3}, {"nodes": 5}, {"accumulate": 33}, {"devices": 8, "accumulate": 8}])
def test_batch_that_does_not_divide_is_refused(options: dict[str, int], make_recipe: Callable[..., Any]) -> None:
    with pytest.raises(UsageError, match=r"^data.batch_size=32 must be a multiple of train.devices=\d") as caught:
        make_recipe(**options)
    assert all(f"train.{name}={value}" in str(caught.value) for name, value in options.items())


@pytest.mark.parametrize("option", ["devices", "nodes", "accumulate"])
def test_none_at_all_is_refused(option: str) -> None:
    with pytest.raises(UsageError, match=f"^train.{option} must be at least 1, not 0"):
        replace(TrainConfig(), **{option: 0})


def test_torchrun_with_another_number_of_processes_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "1")
    monkeypatch.setenv("WORLD_SIZE", "4")
    with pytest.raises(UsageError, match="asks for 1 processes, but torchrun started 4"):
        own_rank(TrainConfig())


def test_more_gpus_than_there_are_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(UsageError, match=r"^train.devices=2 asks for more GPUs than there are: 1"):
        own_rank(TrainConfig(devices=2))


def test_another_number_of_parts_is_another_recipe(train: Callable[..., Any], make_recipe: Callable[..., Any]) -> None:
    train("vanilla", make_recipe(epochs=1))
    with pytest.raises(UsageError, match=r"train.accumulate"):
        train("vanilla", make_recipe(epochs=1, accumulate=2), resume=True)
