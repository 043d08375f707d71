"""CIFAR-10 and -100: files in the published format, and everything that can be wrong with them."""

import hashlib
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torchvision.datasets import CIFAR10, CIFAR100

from spikeback.data import load
from spikeback.errors import UsageError

from .cifar_files import dump, pickled, write_cifar10, write_cifar100

WRITERS: dict[str, Callable[[Path], Any]] = {"cifar10": write_cifar10, "cifar100": write_cifar100}
FOLDERS = {"cifar10": "cifar-10-batches-py", "cifar100": "cifar-100-python"}
SOURCES: dict[str, Any] = {"cifar10": CIFAR10, "cifar100": CIFAR100}


def publish(name: str, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Declare the files that lie in `root` the published ones."""
    source, folder = SOURCES[name], root / FOLDERS[name]
    for entries in ("train_list", "test_list"):
        sums = [[file, hashlib.md5((folder / file).read_bytes()).hexdigest()] for file, _ in getattr(source, entries)]
        monkeypatch.setattr(source, entries, sums)
    md5 = hashlib.md5((folder / source.meta["filename"]).read_bytes()).hexdigest()
    monkeypatch.setattr(source, "meta", {**source.meta, "md5": md5})


@pytest.mark.parametrize("name", WRITERS)
def test_images_labels_and_classes_are_those_written(name: str, tmp_path: Path) -> None:
    train, test, train_labels, test_labels = WRITERS[name](tmp_path)
    dataset = load(name, tmp_path, unchecked=True)
    for split, images, labels in ((dataset.train, train, train_labels), (dataset.test, test, test_labels)):
        assert split.shape == (3, 32, 32)
        assert torch.equal(split.read(torch.arange(len(split))), torch.from_numpy(images))
        assert split.labels.tolist() == labels
    assert len(dataset.classes) == {"cifar10": 10, "cifar100": 100}[name]
    assert dataset.classes[:2] == {"cifar10": ("airplane", "automobile"), "cifar100": ("class00", "class01")}[name]
    assert load(name, tmp_path / FOLDERS[name], unchecked=True).hash() == dataset.hash()


@pytest.mark.parametrize("name", WRITERS)
def test_what_is_read_is_what_torchvision_reads(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    WRITERS[name](tmp_path)
    publish(name, tmp_path, monkeypatch)
    dataset = load(name, tmp_path)
    assert "md5 sums checked" in dataset.provenance
    for train, split in ((True, dataset.train), (False, dataset.test)):
        theirs = SOURCES[name](tmp_path, train=train)
        assert torch.equal(split.read(torch.arange(len(split))), torch.from_numpy(theirs.data).permute(0, 3, 1, 2))
        assert split.labels.tolist() == theirs.targets
        assert list(dataset.classes) == theirs.classes


def test_statistics_are_the_published_ones(tmp_path: Path) -> None:
    write_cifar10(tmp_path)
    write_cifar100(tmp_path)
    statistics = [vars(load(name, tmp_path, unchecked=True))["statistics"] for name in WRITERS]
    assert statistics[0] == ((0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010))
    assert statistics[1] == ((0.5071, 0.4867, 0.4408), (0.2675, 0.2565, 0.2761))


def test_a_file_that_is_not_as_published_is_never_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_cifar10(tmp_path)
    monkeypatch.setattr("spikeback.data.sets.cifar.read_pickle", lambda path: pytest.fail(f"{path} was opened"))
    with pytest.raises(
        UsageError, match=r"data_batch_1 is not as published, its md5 should be c99cafc.*unchecked=True$"
    ):
        load("cifar10", tmp_path)


def test_one_altered_byte_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_cifar100(tmp_path)
    publish("cifar100", tmp_path, monkeypatch)
    path = tmp_path / "cifar-100-python" / "test"
    content = bytearray(path.read_bytes())
    content[1000] ^= 1
    path.write_bytes(content)
    with pytest.raises(UsageError, match="test is not as published"):
        load("cifar100", tmp_path)


class Malicious:
    """Unpickled, makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return Path.touch, (self.path,)


def test_even_unchecked_no_pickle_runs_code(tmp_path: Path) -> None:
    write_cifar10(tmp_path)
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        content = pickle.dumps({"data": Malicious(tmp_path / "made")}, protocol)
        (tmp_path / "cifar-10-batches-py" / "data_batch_3").write_bytes(content)
        with pytest.raises(UsageError, match=r"data_batch_3 cannot be read as a pickle of arrays \(it asks for "):
            load("cifar10", tmp_path, unchecked=True)
    assert not (tmp_path / "made").exists()


def test_torchvisions_class_would_run_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The reason for a reader of our own."""
    write_cifar10(tmp_path)
    content = pickle.dumps({"data": Malicious(tmp_path / "made"), "labels": []})
    (tmp_path / "cifar-10-batches-py" / "data_batch_1").write_bytes(content)
    monkeypatch.setattr(CIFAR10, "train_list", [["data_batch_1", None]])
    monkeypatch.setattr(CIFAR10, "test_list", [])
    with pytest.raises((ValueError, RuntimeError, TypeError, IndexError)):
        CIFAR10(tmp_path)
    assert (tmp_path / "made").exists()


GOOD = {"labels": [0, 1], "data": torch.zeros(2, 3072, dtype=torch.uint8).numpy()}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "cannot be read as a pickle"),
        (b"garbage", "cannot be read as a pickle"),
        (b"\x80\x02" + pickled(GOOD)[:-400] + b".", "cannot be read as a pickle"),
        (b"\x80\x02" + pickled([1, 2]) + b".", "holds a list, not a dictionary"),
        (b"\x80\x02" + pickled({}) + b".", "must hold 'data', N x 3072 bytes"),
        (b"\x80\x02" + pickled(GOOD | {"labels": [0]}) + b".", "and as many labels"),
        (b"\x80\x02" + pickled(GOOD | {"labels": [0, 10]}) + b".", "holds the label 10; the classes are 0 to 9"),
        (b"\x80\x02" + pickled(GOOD | {"labels": [0, -1]}) + b".", "holds the label -1"),
        (b"\x80\x02" + pickled(GOOD | {"labels": ["a", 1]}) + b".", "holds the label 'a'"),
        (b"\x80\x02" + pickled(GOOD | {"data": GOOD["data"][:, :3000]}) + b".", "must hold 'data', N x 3072 bytes"),
    ],
)
def test_each_wrong_pickle_is_one_clear_line(content: bytes, message: str, tmp_path: Path) -> None:
    write_cifar10(tmp_path)
    (tmp_path / "cifar-10-batches-py" / "data_batch_2").write_bytes(content)
    with pytest.raises(UsageError) as error:
        load("cifar10", tmp_path, unchecked=True)
    assert "data_batch_2 " in str(error.value)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_names_that_are_none_are_an_error(tmp_path: Path) -> None:
    write_cifar10(tmp_path)
    dump(tmp_path / "cifar-10-batches-py" / "batches.meta", {"label_names": [1, 2]})
    with pytest.raises(UsageError, match=r"batches\.meta has no list 'label_names' of class names"):
        load("cifar10", tmp_path, unchecked=True)


def test_a_missing_file_and_a_folder_in_its_place_are_named(tmp_path: Path) -> None:
    write_cifar10(tmp_path)
    path = tmp_path / "cifar-10-batches-py" / "test_batch"
    path.unlink()
    with pytest.raises(UsageError, match=r"test_batch is missing; cifar-10-batches-py/ must hold its original files"):
        load("cifar10", tmp_path, unchecked=True)
    path.mkdir()
    with pytest.raises(UsageError, match="test_batch is not a file"):
        load("cifar10", tmp_path, unchecked=True)
