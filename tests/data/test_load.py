import urllib.error
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torchvision.datasets import CIFAR100

from spikeback.data import load
from spikeback.data.sets import fashion_mnist
from spikeback.errors import UsageError

from .cifar_files import write_cifar100


def test_fashion_mnist_without_files_is_the_subset_and_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fashion_mnist, "DEBIAN", tmp_path)
    assert load("fashion-mnist").name == "Fashion-MNIST, embedded subset"
    assert load("fashion-mnist").hash() == load("embedded").hash()


def test_fashion_mnist_is_the_whole_set_where_installed(
    write_idx: Callable[..., object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_idx(published=True)
    monkeypatch.setattr(fashion_mnist, "DEBIAN", tmp_path)
    assert load("fashion-mnist").name == "Fashion-MNIST"
    assert load("embedded").name == "Fashion-MNIST, embedded subset"


def test_size_resizes_any_dataset_and_provenance_says_so() -> None:
    resized = load("embedded", size=16)
    assert (len(resized.train), resized.train.shape) == (6000, (1, 16, 16))
    assert (len(resized.test), resized.test.shape) == (1000, (1, 16, 16))
    assert "resized to 16 x 16" in resized.provenance
    assert torch.equal(resized.train.labels, load("embedded").train.labels)


def test_the_right_size_changes_nothing() -> None:
    assert load("embedded", size=28).provenance == load("embedded").provenance


def test_home_is_expanded(
    draw_image: Callable[..., np.ndarray], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("pets/cat/1.png", "pets/cat/2.png", "pets/dog/1.png", "pets/dog/2.png"):
        draw_image(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert load("folder", "~/pets").classes == ("cat", "dog")


@pytest.mark.parametrize(
    ("name", "root", "message"),
    [
        (
            "mnist",
            None,
            "data.name='mnist' is unknown (did you mean 'nmnist'?); choose from embedded, fashion-mnist, folder",
        ),
        ("folder", None, "data.name=folder needs data.root"),
        ("embedded", "somewhere", "data.root=somewhere has no use with data.name=embedded"),
        ("cifar10", None, "data.name=cifar10 needs data.root, the folder that holds cifar-10-batches-py/"),
        ("cifar10", "", "data.root is empty; give the folder"),
        ("cifar10", "nowhere", "nowhere/cifar-10-batches-py/data_batch_1 is missing"),
        ("imagenet", None, "data.name=imagenet needs data.root, the folder that holds train/<wnid>/*.JPEG"),
        ("imagenet", "nowhere", "nowhere/train is not a folder; ImageNet needs train/<wnid>/*.JPEG"),
        ("cifar10-dvs", None, "data.name=cifar10-dvs needs data.root"),
        ("nmnist", None, "data.name=nmnist needs data.root"),
        ("tonic:NMNIST", None, "data.name=tonic:NMNIST needs data.root"),
        ("simulated-dvs", "somewhere", "data.root=somewhere has no use with data.events.source=embedded"),
        ("fashion-mnist", "nowhere", "data.root=nowhere lacks Fashion-MNIST; expected train-images-idx3-ubyte"),
        ("folder", "nowhere", "data.root=nowhere is not a folder"),
    ],
)
def test_each_mistake_is_one_clear_line(name: str, root: str | None, message: str) -> None:
    with pytest.raises(UsageError) as error:
        load(name, root)
    assert str(error.value).startswith(message)
    assert "\n" not in str(error.value)


def test_what_cannot_be_downloaded_says_what_is_needed(tmp_path: Path) -> None:
    with pytest.raises(
        UsageError, match=r"fetches cifar10, cifar100, fashion-mnist; put imagenet there by hand: the folder that"
    ):
        load("imagenet", tmp_path, download=True)
    with pytest.raises(UsageError, match=r"^data\.download=True needs data\.root, the folder to fetch fashion-mnist"):
        load("fashion-mnist", download=True)
    with pytest.raises(UsageError, match=r"^data\.download=True has no use with data\.name=embedded: it is in the"):
        load("embedded", download=True)


def test_a_download_that_fails_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(*_: object, **__: object) -> None:
        raise urllib.error.URLError("Name or service not known")

    monkeypatch.setattr("torchvision.datasets.cifar.download_and_extract_archive", unreachable)
    with pytest.raises(
        UsageError, match=rf"^data\.download=True: cifar10 could not be fetched into {tmp_path}: .*known"
    ):
        load("cifar10", tmp_path, download=True)


def test_a_download_is_torchvisions_into_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    unchecked = {"train_list": [["train", None]], "test_list": [["test", None]], "meta": {**CIFAR100.meta, "md5": None}}
    for name, value in unchecked.items():
        monkeypatch.setattr(CIFAR100, name, value)
    asked = []

    def fetch(url: str, root: str, **_: object) -> None:
        asked.append(url)
        write_cifar100(Path(root))

    monkeypatch.setattr("torchvision.datasets.cifar.download_and_extract_archive", fetch)
    for _ in range(2):  # the second time it is there
        assert load("cifar100", tmp_path, download=True).name == "CIFAR-100"
    assert asked == [CIFAR100.url]


def test_a_split_is_only_chosen_where_there_are_several() -> None:
    with pytest.raises(UsageError, match=r"^data\.split=random-1 has no use with data\.name=embedded"):
        load("embedded", split="random-1")
