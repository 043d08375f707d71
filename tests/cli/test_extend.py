"""A loss from a file outside the package: trained with, seen by the doctor, chosen on the command line."""

import gc
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

import spikeback as sb
from spikeback import extensions
from spikeback.cli.main import build_parser, expanded
from spikeback.doctor import decompose
from spikeback.values import choices

LOSS = '''
from dataclasses import dataclass
from typing import ClassVar

from torch.nn.functional import cross_entropy

from spikeback.losses import Loss


@dataclass(frozen=True)
class EveryStep(Loss):
    """The cross-entropy of every time step, and as much of every branch's as `part` says."""

    part: float = 1.0
    per_step: ClassVar[bool] = True
    summed: ClassVar[bool] = False

    def __call__(self, main, side, weight, y):
        judge = lambda z: cross_entropy(z.flatten(0, 1).float(), y.repeat(len(z)))
        return judge(main) + weight * self.part * sum(judge(z) for z in side.values())
'''


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The name of a file in the current folder; what it adds is gone afterwards."""
    monkeypatch.chdir(tmp_path)
    name = "my_loss_of_every_step"
    Path(f"{name}.py").write_text(LOSS, encoding="utf-8")
    yield f"{name}.py"
    forget(f"{name}.py")


@pytest.mark.slow
def test_a_loss_of_ones_own_is_trained_and_diagnosed(
    module: str, command: Callable[..., Any], refused: Callable[..., str], tiny: list[str], tmp_path: Path
) -> None:
    words = ["fit", *tiny, "--train.epochs", "1", "--train.loss", "everystep(part=0.5)", "--out", "run"]
    assert "no loss 'everystep(part=0.5)'" in refused(*words)
    assert not Path("run").exists()
    done = command(*words, "--import", module)
    assert done.code == 0, done.err
    results = json.loads(Path("run/results.json").read_text(encoding="utf-8"))
    assert (results["config"]["train"]["loss"], results["config"]["import"]) == ("EveryStep(part=0.5)", [module])
    assert results["trials"][0]["last_sum_accuracy"] is None  # it judges the main branch
    shares = results["trials"][0]["gradients"]["shares"]
    assert [sum(row) for row in shares["first_block"]] == pytest.approx([1.0] * len(shares["first_block"]), abs=1e-4)
    diagnosis = command(
        "diagnose",
        *tiny,
        "--train.loss",
        "EveryStep",
        "--import",
        module,
        "--weight",
        "1",
        "--passes",
        "--samples",
        "8",
    )
    assert diagnosis.code == 0, diagnosis.err


@pytest.mark.slow
def test_what_a_run_needs_is_said_where_it_is_not_imported(
    module: str, command: Callable[..., Any], refused: Callable[..., str], tiny: list[str]
) -> None:
    train = ["fit", *tiny, "--train.epochs", "1", "--out", "run", "--train.loss", "EveryStep"]
    assert command(*train, "--import", module).code == 0
    forget(module)
    advice = f"the recipe was made with --import {module}: add it"
    assert advice in refused("test", "run")
    assert advice in refused(*train, "--resume")
    assert advice in refused("fit", "--config", "run/config.yaml", "--out", "run", "--resume")
    assert command("test", "run", "--import", module).code == 0
    assert command(*train, "--resume", "--import", module).code == 0


def forget(module: str) -> None:
    """As in a new process."""
    extensions.LOADED.discard(module)
    sys.modules.pop(Path(module).stem, None)
    gc.collect()  # a class is known by its base for as long as it lives
    assert "everystep" not in choices(sb.losses.Loss)


def test_its_gradient_is_decomposed(module: str, make_net: Callable[..., Any], images: torch.Tensor) -> None:
    extensions.load(module)
    loss = choices(sb.losses.Loss)["everystep"]()
    model, y = sb.ShortcutNet(make_net()), torch.tensor([0, 3, 4])
    parts = decompose(model, images, y, 0.5, loss, ["layer1.0"])["layer1.0"]
    assert sum(part["share"] for part in parts.values()) == pytest.approx(1.0, abs=1e-4)
    assert all(part["norm"] > 0 for part in parts.values())
    main, side = model.train().heads(images, 0.5)
    assert len(main) == 2  # every time step, as `per_step` says
    found = sb.diagnose(model, images, y, weight=0.5, loss=loss, passes=()).facts["loss"]
    assert found == pytest.approx(loss(main, side, 0.5, y).item(), rel=1e-5)


@pytest.mark.parametrize(("content", "name", "said"), [
    (None, "gone.py", "--import: no file gone.py"),
    (None, "gone.deeper", "--import: no module 'gone.deeper'; give a file"),
    ("1 / 0", "broken.py", "--import: broken.py fails: ZeroDivisionError: division by zero"),
    ("import not_there", "lacking.py", "--import: lacking.py fails: ModuleNotFoundError: No module named 'not_there'"),
    ("", "json.py", "--import: json.py has the name of a module that is loaded, json; rename the file"),
])  # fmt: skip
def test_a_module_that_cannot_be_imported_is_one_line(
    content: str | None,
    name: str,
    said: str,
    refused: Callable[..., str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    if content is not None:
        Path(name).write_text(content, encoding="utf-8")
    assert said in refused("fit", "--import", name)
    assert name not in extensions.LOADED


def test_import_may_be_given_several_times(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, parsed: Callable[..., Any]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("one_of_two.py").write_text("", encoding="utf-8")
    (tmp_path / "two_of_two").mkdir()
    Path("two_of_two/inner.py").write_text("", encoding="utf-8")
    words = expanded(build_parser()[0], ["fit", "--import", "one_of_two.py", "--import=two_of_two.inner"])
    assert parsed(*words)["import"] == ["one_of_two.py", "two_of_two.inner"]
