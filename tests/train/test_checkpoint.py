"""Checkpoints that are damaged are never taken for sound ones; of what is sound, the newest counts."""

import io
import random
from pathlib import Path

import pytest
import torch

from spikeback.errors import UsageError
from spikeback.train import Recipe
from spikeback.train.checkpoint import read_checkpoint
from spikeback.train.resume import keep_best, resume_point


def checkpoint(path: Path, *accuracies: float) -> Path:
    """What matters here of a checkpoint after so many epochs."""
    content = {
        "callbacks": {"Checkpoints": {"card": {"recipe": Recipe().as_dict()}}},
        "state_dict": {"model.net.fc.weight": torch.randn(8, 8, generator=torch.manual_seed(len(accuracies)))},
        "record": {"history": {"held_out_accuracy": list(accuracies)}},
    }
    torch.save(content, path)
    return path


def break_off(path: Path) -> Path:
    path.write_bytes(path.read_bytes()[:-1])
    return path


def test_every_bit_that_matters_is_checked(tmp_path: Path) -> None:
    path, rng = checkpoint(tmp_path / "last.ckpt", 0.1), random.Random(0)
    data, expected = path.read_bytes(), read_checkpoint(path)
    refused = 0
    for position in rng.sample(range(len(data)), 400):
        path.write_bytes(data[:position] + bytes([data[position] ^ 1 << rng.randrange(8)]) + data[position + 1 :])
        try:
            content = read_checkpoint(path)
        except UsageError:
            refused += 1
            continue
        assert (content.card, content.record) == (expected.card, expected.record)
        assert torch.equal(content.net["fc.weight"], expected.net["fc.weight"])
    assert 100 < refused < 400  # of the rest some is padding
    for length in (0, 1, 30, len(data) // 3, len(data) - 30, len(data) - 1):
        path.write_bytes(data[:length])
        with pytest.raises(UsageError, match="damaged"):
            read_checkpoint(path)


def test_torch_alone_takes_a_flipped_bit() -> None:
    """If this fails, read_checkpoint need not look at checksums any more."""
    buffer = io.BytesIO()
    torch.save(torch.zeros(1000), buffer)
    data = bytearray(buffer.getvalue())
    data[len(data) // 2] ^= 1
    assert torch.load(io.BytesIO(data), weights_only=True).count_nonzero() == 1


@pytest.mark.parametrize(
    ("last", "previous", "chosen", "said"),
    [
        ("sound", "sound", "last.ckpt", ""),
        ("sound", "damaged", "last.ckpt", ""),
        ("sound", "missing", "last.ckpt", ""),
        ("damaged", "sound", "previous.ckpt", "going on from previous.ckpt, after epoch 1"),
        ("missing", "sound", "previous.ckpt", "going on from previous.ckpt, after epoch 1"),
        ("damaged", "missing", None, "the trial starts anew"),
        ("damaged", "damaged", None, "the trial starts anew"),
        ("missing", "damaged", None, "the trial starts anew"),
        ("missing", "missing", None, ""),
    ],
)
def test_newest_sound_checkpoint(last: str, previous: str, chosen: str | None, said: str, tmp_path: Path) -> None:
    states = {"last.ckpt": (last, (0.2, 0.1)), "previous.ckpt": (previous, (0.2,))}
    for name, (state, accuracies) in states.items():
        if state != "missing":
            checkpoint(tmp_path / name, *accuracies)
        if state == "damaged":
            break_off(tmp_path / name)
    checkpoint(tmp_path / "best.ckpt", 0.2)
    (tmp_path / ".last.ckpt.1.part").write_bytes(b"of a process that was killed")
    before = {path.read_bytes() for path in tmp_path.glob("*.ckpt")}
    lines: list[str] = []
    names = sorted(tmp_path.iterdir())
    assert resume_point(tmp_path, Recipe(), None) == (chosen and tmp_path / chosen)
    assert sorted(tmp_path.iterdir()) == names  # another process has the say
    assert resume_point(tmp_path, Recipe(), lines.append) == (chosen and tmp_path / chosen)
    assert len(lines) == bool(said)
    assert said in "".join(lines)
    assert {path.read_bytes() for path in tmp_path.iterdir()} == before  # nothing is lost but the part


def test_checkpoint_of_another_recipe_is_refused(tmp_path: Path) -> None:
    path, other = checkpoint(tmp_path / "last.ckpt", 0.1), Recipe()
    other.train.lr = 7.0
    with pytest.raises(UsageError, match="another recipe"):
        resume_point(tmp_path, other, pytest.fail)
    assert path.is_file()


@pytest.mark.parametrize("state", ["missing", "damaged", "of epoch 1"])
def test_best_is_written_anew_if_it_is_the_last(state: str, tmp_path: Path) -> None:
    last, best, lines = checkpoint(tmp_path / "last.ckpt", 0.1, 0.2), tmp_path / "best.ckpt", list[str]()
    if state != "missing":
        checkpoint(best, 0.1)
    if state == "damaged":
        break_off(best)
    keep_best(tmp_path, last, lines.append)
    assert best.read_bytes() == last.read_bytes()
    assert lines == [f"{best} is {state}: written anew from last.ckpt, which has the best epoch, 2"]


@pytest.mark.parametrize("state", ["missing", "damaged", "of epoch 2"])
def test_best_that_nothing_else_holds_is_refused(state: str, tmp_path: Path) -> None:
    last, best = checkpoint(tmp_path / "last.ckpt", 0.2, 0.1, 0.2), tmp_path / "best.ckpt"
    if state != "missing":
        checkpoint(best, 0.1, 0.2)
    if state == "damaged":
        break_off(best)
    with pytest.raises(
        UsageError, match=f"{best} is {state}.* those of epoch 1: move {tmp_path} elsewhere and add resume=True"
    ):
        keep_best(tmp_path, last, pytest.fail)


def test_best_of_a_later_epoch_stays(tmp_path: Path) -> None:
    """After a fall-back, the epoch is trained again."""
    previous, best = checkpoint(tmp_path / "previous.ckpt", 0.2, 0.1), checkpoint(tmp_path / "best.ckpt", 0.2, 0.1, 0.3)
    before = best.read_bytes()
    keep_best(tmp_path, previous, pytest.fail)
    assert best.read_bytes() == before
