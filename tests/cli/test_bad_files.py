"""Files that are missing, broken or of something else: one line that names the file, nothing half-written."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

Refused = Callable[..., str]


def state(folder: Path) -> dict[Path, int]:
    """Every file below and when it was last written."""
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("out", ["file", "file/run"])
def test_unwritable_output_folder(out: str, refused: Refused, tiny: list[str], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    line = refused("compare", *tiny, "--out", tmp_path / out)
    assert str(tmp_path / out) in line
    assert "folder you can write to" in line
    assert (tmp_path / "file").read_text() == "not a folder"
    assert list(tmp_path.iterdir()) == [tmp_path / "file"]


@pytest.mark.parametrize("subcommand", ["compare", "fit"])
def test_file_that_is_no_image(
    subcommand: str, refused: Refused, tiny: list[str], draw_tree: Callable[..., Path], tmp_path: Path
) -> None:
    root = draw_tree("cats", "dogs")
    (root / "dogs" / "broken.png").write_text("not an image")
    line = refused(subcommand, *tiny, "--data.name", "folder", "--data.root", root, "--out", tmp_path / "run")
    assert str(root / "dogs" / "broken.png") in line
    assert "image" in line
    assert not (tmp_path / "run").exists()


def break_random(path: Path) -> None:
    path.write_bytes(bytes(range(256)) * 20)


def break_empty(path: Path) -> None:
    path.write_bytes(b"")


def break_truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def break_foreign(path: Path) -> None:
    torch.save({"state_dict": {"fc.weight": torch.zeros(2, 2)}}, path)


BREAKS = [break_random, break_empty, break_truncated, break_foreign]


@pytest.mark.parametrize("subcommand", ["test", "predict"])
@pytest.mark.parametrize("damage", BREAKS)
def test_broken_checkpoint(
    damage: Callable[[Path], None], subcommand: str, refused: Refused, run: Path, draw_tree: Callable[..., Path]
) -> None:
    checkpoint = run / "vanilla-seed0" / "best.ckpt"
    damage(checkpoint)
    images = ["--images", draw_tree("x"), "--out", run / "p.csv"] if subcommand == "predict" else []
    line = refused(subcommand, checkpoint.parent, *images)
    assert str(checkpoint) in line
    assert "not a spikeback checkpoint" in line
    assert not (run / "p.csv").exists()


def test_checkpoint_of_another_model(refused: Refused, run: Path) -> None:
    checkpoint = run / "vanilla-seed0" / "best.ckpt"
    content = torch.load(checkpoint, weights_only=True)
    for callback in content["callbacks"].values():
        if "card" in callback:
            callback["card"]["recipe"]["model"]["width"] = 8
    torch.save(content, checkpoint)
    line = refused("test", checkpoint)
    assert str(checkpoint) in line
    assert "do not fit spiking_resnet20_he" in line


@pytest.mark.slow
def test_resume_from_checkpoint_of_another_recipe(
    refused: Refused, run: Path, resume: Callable[..., list[str]], command: Callable[..., Any], tiny: list[str]
) -> None:
    other = run.parent / "other"
    assert command("fit", *tiny, "--model.width", 8, "--method", "vanilla", "--out", other).code == 0
    words = resume(run, "vanilla", 0)
    shutil.copy(other / "vanilla-seed0" / "last.ckpt", run / "vanilla-seed0" / "last.ckpt")
    line = refused(*words)
    assert str(run / "vanilla-seed0" / "last.ckpt") in line
    assert "another recipe" in line


@pytest.mark.parametrize("classes", [("cats", "dogs", "fish"), ("cats", "wolves")])
def test_classes_that_do_not_match_the_checkpoint(
    classes: tuple[str, ...],
    refused: Refused,
    command: Callable[..., Any],
    tiny: list[str],
    draw_tree: Callable[..., Path],
    tmp_path: Path,
) -> None:
    root, out = draw_tree("cats", "dogs"), tmp_path / "run"
    data = ["--data.name", "folder", "--data.root", root, "--data.batch_size", 8]
    assert command("fit", *tiny, *data, "--train.epochs", 1, "--out", out).code == 0
    line = refused("test", out, "--data.root", draw_tree(*classes, name="other"))
    assert "2 classes (cats, dogs)" in line
    assert f"{len(classes)} ({', '.join(classes)})" in line


@pytest.mark.parametrize("subcommand", ["test", "predict", "report"])
def test_run_that_does_not_exist(subcommand: str, refused: Refused, tmp_path: Path) -> None:
    images = ["--images", tmp_path, "--out", tmp_path / "p.csv"] if subcommand == "predict" else []
    line = refused(subcommand, tmp_path / "gone", *images)
    assert str(tmp_path / "gone") in line
    assert "runs/demo" in line  # an example of what would be right
    assert not any(tmp_path.iterdir())


def test_run_of_several_trials_lists_them(refused: Refused, finished: Path) -> None:
    line = refused("test", finished)
    for trial in ("vanilla-seed0", "vanilla-seed1", "evolutionary-seed0", "evolutionary-seed1"):
        assert str(finished / trial) in line


def test_predict_on_folder_without_images(refused: Refused, finished: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    line = refused("predict", finished / "vanilla-seed0", "--images", tmp_path / "empty", "--out", tmp_path / "p.csv")
    assert str(tmp_path / "empty") in line
    assert ".png" in line
    assert not (tmp_path / "p.csv").exists()


def test_predict_on_file_that_is_no_image(
    refused: Refused, finished: Path, draw_tree: Callable[..., Path], tmp_path: Path
) -> None:
    (tmp_path / "notes.png").write_text("x")
    words = ["predict", finished / "vanilla-seed0", "--out", tmp_path / "p.csv", "--images"]
    assert f"{tmp_path / 'notes.png'} cannot be read as an image" in refused(*words, tmp_path / "notes.png")
    root = draw_tree("some")
    for path in (root / "some").iterdir():
        path.write_text("x")
    assert f"10 images, all broken: {root}/some/0.png cannot be read" in refused(*words, root)
    assert not (tmp_path / "p.csv").exists()


@pytest.mark.parametrize("content", [b"{", b"[]", b"{}", b"\xff\xfe"])
@pytest.mark.parametrize("subcommand", ["report", "compare"])
def test_results_that_cannot_be_read(
    subcommand: str, content: bytes, refused: Refused, run: Path, tiny: list[str]
) -> None:
    (run / "results.json").write_bytes(content)
    before = state(run)
    words = [*tiny, "--out", run, "--resume"] if subcommand == "compare" else [run]
    assert "results" in refused(subcommand, *words)
    assert state(run) == before


@pytest.mark.slow
def test_loss_that_is_not_finite_keeps_what_is_finished(refused: Refused, tiny: list[str], tmp_path: Path) -> None:
    out = tmp_path / "run"
    methods = ["--methods", "vanilla", "Evolutionary(start=1e39)", "--seeds", 0]  # more than float32 holds
    line = refused("compare", *tiny, *methods, "--out", out, code=1)
    assert "lower --train.lr (0.1)" in line
    assert f"1 of 2 trials are finished and kept in {out}" in line
    assert [trial["method"] for trial in json.loads((out / "results.json").read_text())["trials"]] == ["vanilla"]
    assert (out / "vanilla-seed0" / "net.safetensors").is_file()


def test_learning_rate_too_large_says_so(refused: Refused, tiny: list[str], tmp_path: Path) -> None:
    line = refused("fit", *tiny, "--method", "vanilla", "--train.lr", "1e38", "--out", tmp_path / "run", code=1)
    assert "lower --train.lr (1e+38)" in line
    assert "step 2 of 8" in line
