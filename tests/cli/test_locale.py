"""Files are UTF-8 whatever the locale, and `~` is the home folder in every path."""

import json
import locale
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from spikeback.cli.options import read_recipe
from spikeback.data import load, read_events, read_images
from spikeback.data.events.animate import animate
from spikeback.files import as_path, as_text, read_text
from spikeback.report import write_csv, write_report

Command = Callable[..., Any]
NAMES = ("κάτω", os.fsdecode(b"caf\xe9"))  # the second is no UTF-8


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The home folder, which is not the current one."""
    (tmp_path / "home").mkdir()
    (tmp_path / "work").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path / "work")
    return tmp_path / "home"


@pytest.fixture
def ascii_locale() -> Iterator[None]:
    """What is opened without an encoding is ASCII."""
    before = locale.setlocale(locale.LC_CTYPE)
    locale.setlocale(locale.LC_CTYPE, "C")
    yield
    locale.setlocale(locale.LC_CTYPE, before)


def draw(folder: Path, names: tuple[str, ...]) -> None:
    rng = np.random.default_rng(0)
    for name in names:
        (folder / name).mkdir(parents=True)
        for i in range(10):
            Image.fromarray(rng.integers(0, 256, (8, 8), np.uint8)).save(folder / name / f"{i}.png")


@pytest.mark.slow
@pytest.mark.usefixtures("ascii_locale")
def test_every_file_is_utf8(command: Command, tiny: list[str], home: Path) -> None:
    draw(home / "εικόνες", NAMES)
    (home / "λ.yaml").write_text("\ufeffbase: βάση.yaml\ntitle: λ falls", encoding="utf-8")
    (home / "βάση.yaml").write_text("train: {epochs: 1}", encoding="utf-8")
    (home / "data.yaml").write_text("{name: folder, root: ~/εικόνες, batch_size: 4, held_out: 0.2}", encoding="utf-8")
    words = [*tiny, "--config", home / "λ.yaml", "--data", "~/data.yaml", "--train.epochs", 1, "--data.batch_size", 4]
    done = command("fit", *words, "--method", "vanilla", "--out", home / "run")
    assert done.code == 0, done
    results = json.loads((home / "run/results.json").read_bytes())
    assert results["title"] == "λ falls"
    assert read_recipe(home / "run/config.yaml")["title"] == "λ falls"
    done = command("test", home / "run")
    assert done.code == 0, done
    assert all(name in done.out for name in ("κάτω", "caf\ufffd"))
    done = command("predict", home / "run", "--images", home / "εικόνες", "--out", home / "predictions.csv")
    assert done.code == 0, done
    lines = (home / "predictions.csv").read_text("utf-8").splitlines()
    assert lines[0] == "file,class,caf\ufffd,κάτω"
    assert f"{home}/εικόνες/κάτω/0.png" in lines[11]
    write_csv(results, home / "results.csv")
    assert "λ falls" in write_report(results, home / "report.html").read_text("utf-8")
    done = command("tables", home / "run", "--table", 1, "--format", "markdown", "--out", home / "tables.md")
    assert "λ falls" in (home / "tables.md").read_text("utf-8")


@pytest.mark.slow
def test_the_home_folder_in_every_path(
    command: Command, tiny: list[str], home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawing = ("lab.exits.command.save", "cli.diagnose.save_diagnosis", "cli.diagnose.write_diagnosis")
    for name in drawing:  # takes its time
        monkeypatch.setattr(f"spikeback.{name}", lambda *_: None)
    draw(home / "images", ("cats", "dogs"))
    (home / "recipe.yaml").write_text("base: ~/base.yaml")
    (home / "base.yaml").write_text("data: {name: folder, root: ~/images, held_out: 0.2}")
    words = [*tiny, "--train.epochs", 1, "--data.batch_size", 4, "--config=~/recipe.yaml"]
    calls = [
        ["fit", *words, "--method", "shortcut", "--out=~/run"],
        ["fit", *words, "--method", "shortcut", "--out=~/run", "--resume"],
        ["test", "~/run"],
        ["test", "~/run/shortcut-seed0/last.ckpt", "--data.root=~/images"],
        ["predict", "~/run/shortcut-seed0", "--images=~/images", "--out=~/predictions.csv"],
        ["exits", "~/run", "--out=~/exits"],
        ["diagnose", "~/run", "--samples", 8, "--passes", "--out=~/doctor"],
        ["tables", "~/run", "--table", 1, "--format", "json", "--out=~/tables.json"],
        ["data", "check", "~/images", "--sheet=~/sheet.png"],
        ["sweep", *words, "--vary", "{train.lr: [0.1]}", "--out=~/study", "--plan"],
    ]
    for call in calls:
        done = command(*call)
        assert done.code == 0, (call, done)
    for name in ("run/results.json", "predictions.csv", "exits/exits.json", "doctor/diagnosis.json",
                 "tables.json", "sheet.png"):  # fmt: skip
        assert (home / name).is_file()
    assert not any(Path.cwd().iterdir())


def test_the_home_folder_in_python(home: Path) -> None:
    draw(home / "images", ("cats", "dogs"))
    np.savez(home / "events.npz", t=np.arange(3), x=np.arange(3), y=np.arange(3), p=np.ones(3, int))
    assert load("folder", "~/images").classes == ("cats", "dogs")
    assert len(read_images("~/images", (1, 8, 8), torch.zeros(1), torch.ones(1))[0]) == 20
    assert len(read_events("~/events.npz")) == 3
    assert animate(torch.ones(2, 2, 4, 4), "~/a.gif") == home / "a.gif"
    assert as_path("~nobody-of-this-name/x") == Path("~nobody-of-this-name/x")
    assert not any(Path.cwd().iterdir())


def test_names_that_python_could_not_read() -> None:
    greek, latin = "\udcce\udcbb", "caf\udce9"  # what Python makes of λ where the locale is ASCII; and of no UTF-8
    assert (as_text(greek), as_text("λ"), as_text(latin)) == ("λ", "λ", "caf\ufffd")
    assert as_text(greek + latin, "surrogateescape") == f"λ{latin}"
    assert as_path(greek) == as_path("λ") == Path("λ")
    assert as_path(latin) == Path(latin)


def test_the_mark_that_some_editors_put_before_a_text_is_no_part_of_it(tmp_path: Path) -> None:
    (tmp_path / "results.json").write_bytes(b"\xef\xbb\xbf{}")
    assert read_text(tmp_path / "results.json") == "{}"
