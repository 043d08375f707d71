"""The command, called in this process on trainings that last a second."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from spikeback.cli.main import build_parser, main
from spikeback.files import write_atomic

TINY = [
    *("--model.name", "spiking_resnet20_he", "--model.width", "4", "--model.time_steps", "1"),
    *("--data.size", "8", "--data.limit", "128", "--data.batch_size", "32"),
    *("--train.epochs", "2", "--train.precision", "32-true", "--train.probe", "32"),
    *("--train.calibrate", "none"),
]


@pytest.fixture(scope="session")
def tiny() -> list[str]:
    """Options of a training of 2 epochs of 4 steps."""
    return TINY


@pytest.fixture(scope="session")
def parsed() -> Callable[..., Any]:
    """parsed("compare", "--config", path, ...): the options that a subcommand would run with."""
    parser, _ = build_parser()

    def parse(*words: object) -> Any:
        return parser.parse_args([str(word) for word in words])[str(words[0])]

    return parse


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished comparison of two methods and two seeds. Not to be changed."""
    out = tmp_path_factory.mktemp("finished") / "run"
    main(["compare", *TINY, "--methods", "vanilla", "evolutionary", "--seeds", "0", "1", "--out", str(out)])
    return out


@pytest.fixture(autouse=True)
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs end without plots and with an empty page, drawing takes longer than a training; `finished` is drawn."""
    monkeypatch.setattr("spikeback.cli.live.save_plots", lambda results, out: [])
    monkeypatch.setattr("spikeback.cli.live.write_report", lambda results, path: write_atomic(path, b""))


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Path:
    """A copy of it."""
    return Path(shutil.copytree(finished, tmp_path / "run"))


@pytest.fixture
def draw_tree(tmp_path: Path) -> Callable[..., Path]:
    """draw_tree("cats", "dogs", name="images"): a folder of 10 random images for each class."""

    def draw(*classes: str, name: str = "images") -> Path:
        rng = np.random.default_rng(0)
        for label in classes:
            (tmp_path / name / label).mkdir(parents=True)
            for i in range(10):
                pixels = rng.integers(0, 256, (8, 8), dtype=np.uint8)
                Image.fromarray(pixels).save(tmp_path / name / label / f"{i}.png")
        return tmp_path / name

    return draw


@pytest.fixture
def resume() -> Callable[..., list[str]]:
    """resume(run, method, seed): takes one trial out of the results and returns the words that train it again;
    `forget` deletes its files as well.
    """

    def take_out(run: Path, method: str, seed: int, forget: bool = False) -> list[str]:
        results = json.loads((run / "results.json").read_text())
        results["trials"] = [t for t in results["trials"] if (t["method"], t["seed"]) != (method, seed)]
        (run / "results.json").write_text(json.dumps(results))
        if forget:
            shutil.rmtree(run / f"{method}-seed{seed}")
        words = ["--methods", "vanilla", "evolutionary", "--seeds", "0", "1"]
        return ["compare", *TINY, *words, "--out", str(run), "--resume"]

    return take_out
