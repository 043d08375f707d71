"""How long a training takes is told after its first steps, from those steps, and again as it goes."""

import re
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from spikeback.cli import estimate
from spikeback.cli.estimate import Clock, Estimate, duration


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0.2, "1 s"),
        (89, "89 s"),
        (90, "2 min"),
        (3600, "60 min"),
        (5400, "1 h 30 min"),
        (86399, "1 d 0 h"),
        (187200, "2 d 4 h"),
    ],
)
def test_durations_are_words(seconds: float, words: str) -> None:
    assert duration(seconds) == words


def test_steps_and_pauses_add_up() -> None:
    clock = Clock(judged=6, steps=[1.0, 2.0, 90.0])  # one step that waited for something else counts once
    assert clock.seconds(100, 3) == 100 * 2.0 + 3 * (6 * 2.0 / 3)
    clock.pauses = [5.0, 7.0]
    assert clock.seconds(100, 3) == 100 * 2.0 + 3 * 6.0


class Watch:
    """A training of `epochs` epochs of `steps` steps on a clock of its own: a step takes 2 s, the first three 60 s."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, watched: bool, after: int = 0) -> None:
        self.now, self.bars, self.lines = 0.0, [], []
        monkeypatch.setattr(estimate.time, "perf_counter", lambda: self.now)
        bar: Callable[..., None] = lambda *values: self.bars.append(values)
        self.callback = Estimate(bar, self.lines.append, before=0, after=after, watched=watched)

    def train(self, epochs: int, steps: int) -> None:
        trainer: Any = SimpleNamespace(
            estimated_stepping_batches=epochs * steps, global_step=0, num_val_batches=[2, 1], max_epochs=epochs,
            current_epoch=0,
        )  # fmt: skip
        module: Any = None
        self.callback.on_train_start(trainer, module)
        for trainer.current_epoch in range(epochs):
            self.callback.on_train_epoch_start(trainer, module)
            for _ in range(steps):
                self.now += 2.0 if trainer.global_step >= 3 else 60.0
                self.callback.on_train_batch_end(trainer, module, None, None, 0)  # of an accumulated batch
                trainer.global_step += 1
                self.callback.on_train_batch_end(trainer, module, None, None, 0)
            self.now += 10.0  # judged


def test_it_is_told_after_the_first_steps_without_the_slow_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    watch = Watch(monkeypatch, watched=True, after=2)
    watch.train(epochs=3, steps=100)
    first = next(i for i, (_, _, left) in enumerate(watch.bars) if left != "?")
    steps, epochs = 300 - 8 + 2 * 300, 3 + 2 * 3  # after 3 that warm up and 5 of 2 s, which are ten seconds
    assert watch.bars[first] == (8, 900, duration(2 * steps + epochs * 6 * 2 / 3))
    assert watch.lines == [
        f"about {watch.bars[first][2]} left for this trial of 3 epochs and 2 more like it, at 2 s a step"
    ]
    assert watch.bars[-1] == (300, 900, duration(2 * (2 * 300 * 2 + 10 * 7) / 2))


def test_where_nobody_watches_a_line_follows_every_tenth_of_the_work(monkeypatch: pytest.MonkeyPatch) -> None:
    watch = Watch(monkeypatch, watched=False)
    watch.train(epochs=4, steps=100)
    assert 9 <= len(watch.lines) <= 11
    left = [int(re.search(r"about (\d+) (s|min)", line)[1]) for line in watch.lines[:-2]]  # pyright: ignore
    assert left == sorted(left, reverse=True)


@pytest.mark.slow
def test_a_short_training_is_estimated_from_its_first_epoch(command: Any, tiny: list[str], tmp_path: Path) -> None:
    words = ["--methods", "vanilla", "evolutionary", "--seeds", 0]
    outcome = command("compare", *tiny, *words, "--out", tmp_path / "run")
    assert outcome.code == 0
    lines = [line for line in outcome.out.splitlines() if line.startswith("about ")]
    assert re.fullmatch(r"about \d+ s left for this trial of 2 epochs and 1 more like it, at \S+ s a step", lines[0])
    assert re.fullmatch(r"about \d+ s left for this trial of 2 epochs, at \S+ s a step", lines[-1])
    assert re.search("^(Still|No longer) rising", outcome.out, re.MULTILINE)


@pytest.mark.slow
def test_resume_with_another_length_never_advises_to_remove_a_run_and_its_advice_works(
    run: Path, refused: Callable[..., str], command: Any, tiny: list[str]
) -> None:
    before = {path: path.stat().st_mtime_ns for path in run.rglob("*")}
    own = ["--methods", "vanilla", "evolutionary", "--seeds", 0, 1]
    for epochs in (1, 3):
        line = refused("compare", *tiny, "--train.epochs", epochs, *own, "--out", run, "--resume")
        assert "it differs in --train.epochs; name another --out" in line
        assert not re.search("remove|delete", line)
    assert {path: path.stat().st_mtime_ns for path in run.rglob("*")} == before
    advice = re.search(r"(--config) (\S+)", line)
    assert advice is not None
    assert command("compare", *advice.groups(), *own, "--out", run, "--resume").code == 0
    another = run.with_name("another")
    assert command("fit", *tiny, "--train.epochs", 1, "--out", another).code == 0
