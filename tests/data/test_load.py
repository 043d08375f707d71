from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from spikeback.data import fashion_mnist, load
from spikeback.errors import UsageError


def test_fashion_mnist_without_files_is_the_subset_and_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fashion_mnist, "DEBIAN", tmp_path)
    assert load("fashion-mnist").name == "Fashion-MNIST, embedded subset"
    assert load("fashion-mnist").hash() == load("embedded").hash()


def test_fashion_mnist_is_the_whole_set_where_installed(
    write_idx: Callable[..., object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_idx()
    monkeypatch.setattr(fashion_mnist, "DEBIAN", tmp_path)
    assert load("fashion-mnist").name == "Fashion-MNIST"
    assert load("embedded").name == "Fashion-MNIST, embedded subset"


def test_size_resizes_any_dataset_and_provenance_says_so() -> None:
    resized = load("embedded", size=16)
    assert resized.train.images.shape == (6000, 1, 16, 16)
    assert resized.test.images.shape == (1000, 1, 16, 16)
    assert "resized to 16 x 16" in resized.provenance
    assert torch.equal(resized.train.labels, load("embedded").train.labels)


def test_the_right_size_changes_nothing() -> None:
    assert load("embedded", size=28).provenance == load("embedded").provenance


def test_home_is_expanded(
    draw_picture: Callable[..., np.ndarray], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("pets/cat/1.png", "pets/cat/2.png", "pets/dog/1.png", "pets/dog/2.png"):
        draw_picture(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert load("folder", "~/pets").classes == ("cat", "dog")


@pytest.mark.parametrize(
    ("name", "root", "message"),
    [
        ("mnist", None, "--data.name 'mnist' is unknown; choose from embedded, fashion-mnist, folder"),
        ("folder", None, "--data.name folder needs --data.root"),
        ("embedded", "somewhere", "--data.root somewhere has no use with --data.name embedded"),
        ("fashion-mnist", "nowhere", "--data.root nowhere lacks Fashion-MNIST; expected train-images-idx3-ubyte"),
        ("folder", "nowhere", "--data.root nowhere is not a folder"),
    ],
)
def test_each_mistake_is_one_clear_line(name: str, root: str | None, message: str) -> None:
    with pytest.raises(UsageError) as error:
        load(name, root)
    assert str(error.value).startswith(message)
    assert "\n" not in str(error.value)
