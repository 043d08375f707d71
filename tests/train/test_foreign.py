"""A file that is no checkpoint of ours: what it is and what to give instead, and never that it should be removed."""

import pickle
from collections.abc import Callable
from pathlib import Path

import lightning
import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from spikeback.errors import UsageError
from spikeback.export.weights import checkpoints, load_trained
from spikeback.train.checkpoint import read_checkpoint
from spikeback.train.foreign import EXAMPLE


def halved(write: Callable[[Path], object]) -> Callable[[Path], object]:
    def cut(path: Path) -> None:
        write(path)
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])

    return cut


def weights(path: Path) -> None:
    save_file({"fc.weight": torch.zeros(50, 2)}, path)


def flipped(path: Path) -> None:
    torch.save({"state_dict": {"weight": torch.zeros(500)}}, path)
    data = bytearray(path.read_bytes())
    data[data.index(bytes(1000)) + 500] ^= 1
    path.write_bytes(data)


class Linear(lightning.LightningModule):
    """Somebody else's network."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(2, 2)


def of_lightning(path: Path) -> None:
    """As Lightning itself writes it, with a setting that is no plain value."""
    trainer = lightning.Trainer(
        logger=False, enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
        accelerator="cpu",
    )  # fmt: skip
    trainer.strategy.connect(Linear())
    trainer.save_checkpoint(path, weights_only=True)


FILES: dict[str, tuple[Callable[[Path], object], str]] = {
    "weights": (weights, "a file of weights alone (safetensors)"),
    "weights, cut": (
        lambda path: path.write_bytes((9000).to_bytes(8, "little") + b'{"a'),
        "(safetensors) that is cut off",
    ),
    "state": (lambda path: torch.save({"fc.weight": torch.zeros(2)}, path), "another PyTorch file"),
    "lightning": (lambda path: torch.save({"callbacks": {}, "state_dict": {}}, path), "another PyTorch file"),
    "lightning's own": (of_lightning, "a Lightning checkpoint of another program (it holds no spikeback settings; "),
    "module": (lambda path: torch.save(torch.nn.ReLU(), path), "another PyTorch file"),
    "old": (lambda path: torch.save({}, path, _use_new_zipfile_serialization=False), "a pickle, which could run code"),
    "cut": (halved(lambda path: torch.save({"a": torch.zeros(99)}, path)), "that is damaged or cut off"),
    "flipped": (flipped, "a PyTorch file that is damaged: the checksum of "),
    "pickle": (lambda path: path.write_bytes(pickle.dumps([1])), "a pickle, which could run code"),
    "text": (lambda path: path.write_text("title: größer\n" * 900), "a text file"),
    "image": (lambda path: Image.new("L", (3, 3)).save(path, "PNG"), "an image (PNG)"),
    "empty": (lambda path: path.touch(), "an empty file"),
    "npz": (lambda path: np.savez(path.open("wb"), a=1), "an archive of NumPy arrays"),
    "npy": (lambda path: np.save(path.open("wb"), 1), "a NumPy array"),
    "gzip": (lambda path: path.write_bytes(b"\x1f\x8b\x08"), "a compressed file (gzip)"),
    "hdf5": (lambda path: path.write_bytes(b"\x89HDF\r\n\x1a\n"), "an HDF5 file"),
    "bytes": (lambda path: path.write_bytes(bytes(range(256))), "a file of another kind"),
}


@pytest.mark.parametrize("name", FILES)
@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_what_a_file_is(name: str, tmp_path: Path) -> None:
    write, kind = FILES[name]
    path = tmp_path / "net.bin"
    write(path)
    before = path.read_bytes()
    with pytest.raises(UsageError) as error:
        read_checkpoint(path)
    message = str(error.value)
    assert message.startswith(f"{path} is not a spikeback checkpoint, or not of this version, but ")
    assert kind in message
    assert message.endswith(f"; {EXAMPLE}")
    assert not {"remove", "delete"} & {*message.replace(":", " ").split()}
    assert path.read_bytes() == before


@pytest.mark.parametrize("name", FILES)
@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_only_what_nothing_is_known_of_may_be_damaged(name: str, tmp_path: Path) -> None:
    path = tmp_path / "net.ckpt"
    FILES[name][0](path)
    with pytest.raises(UsageError) as error:
        read_checkpoint(path)
    assert ("if it was one, it is damaged" in str(error.value)) == (name in ("empty", "bytes"))
    assert ("damaged" in str(error.value)) == (name in ("empty", "bytes", "cut", "flipped"))


def test_the_advice_names_what_is_there(tmp_path: Path) -> None:
    trial = tmp_path / "run" / "vanilla-seed0"
    trial.mkdir(parents=True)
    for name in ("best.ckpt", "last.ckpt", "net.safetensors"):
        weights(trial / name)
    weights(tmp_path / "run" / "results.json")
    expected = {
        trial / "net.safetensors": f"give {trial / 'best.ckpt'}, which lies beside it",
        trial / "best.ckpt": f"give {trial / 'last.ckpt'}, which lies beside it",
        tmp_path / "run" / "results.json": f"give a trial's folder, e.g. {trial}",
    }
    for path, advice in expected.items():
        with pytest.raises(UsageError) as error:
            load_trained(str(path), "best")
        assert str(error.value).endswith(f"; {advice}")


def test_a_folder_without_the_checkpoint_says_where_one_is(tmp_path: Path) -> None:
    trial = tmp_path / "runs" / "demo" / "vanilla-seed0"
    trial.mkdir(parents=True)
    (trial / "last.ckpt").touch()
    assert checkpoints(trial, "last.ckpt") == [trial / "last.ckpt"]
    for run, name, advice in (
        (trial, "best.ckpt", "it has last.ckpt: add checkpoint=last"),
        (tmp_path / "runs", "last.ckpt", f"did you mean {trial}?"),
        (tmp_path, "last.ckpt", EXAMPLE),
    ):
        with pytest.raises(UsageError) as error:
            checkpoints(run, name)
        assert str(error.value) == f"{run} has 0 trials with {name}; {advice}"


@pytest.mark.parametrize("broken", ["recipe", "model", "shape", "mean", "classes"])
def test_a_checkpoint_of_another_version_says_so(broken: str, tmp_path: Path) -> None:
    card: dict[str, object] = {
        "recipe": {"title": "x", "data": {}, "model": {}, "branches": {}, "train": {}},
        "method": "vanilla", "seed": 0, "classes": ["a", "b"], "shape": [1, 8, 8], "mean": [0.0], "std": [1.0],
    }  # fmt: skip
    wrong = {"recipe": {"title": "x"}, "shape": [8], "mean": None, "classes": None}
    if broken == "model":
        wrong = {"model": ""}
        card["recipe"] = {**card["recipe"], "model": {"name": "of-tomorrow"}}  # pyright: ignore
    card |= {broken: wrong[broken]}
    path = tmp_path / "best.ckpt"
    content = {"callbacks": {"c": {"card": card}}, "state_dict": {}, "record": {"history": {"weight": []}}}
    torch.save(content, path)
    with pytest.raises(UsageError, match=rf"^{path} is of another version of spikeback, which its run's results.json"):
        load_trained(str(path), "best")
