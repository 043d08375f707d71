"""A file or a folder that may not be read or written is one clear error, whatever the dataset.

The superuser may read everything, so the refusal is injected where Python opens a file.
"""

import builtins
import io
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from spikeback.data import EventConfig, load
from spikeback.data.check import check
from spikeback.data.sets import cifar10_dvs as dvs
from spikeback.data.sets import nmnist as sets
from spikeback.errors import UsageError

from .cifar_files import write_cifar10, write_cifar100
from .nmnist_files import write

WRITERS: dict[str, Callable[[Path], Any]] = {}  # name of a dataset -> writes it, returns one of its files


def writer(name: str) -> Callable[[Callable[[Path], Path]], None]:
    return lambda function: WRITERS.update({name: function})


@writer("folder")
def _(root: Path) -> Path:
    return images(root, ("train", "test"), ("cat", "dog"), ".png")


@writer("imagenet")
def _(root: Path) -> Path:
    return images(root, ("train", "val"), ("n01440764", "n01443537"), ".JPEG")


@writer("cifar10")
def _(root: Path) -> Path:
    write_cifar10(root)
    return root / "cifar-10-batches-py" / "data_batch_3"


@writer("cifar100")
def _(root: Path) -> Path:
    write_cifar100(root)
    return root / "cifar-100-python" / "meta"


@writer("cifar10-dvs")
def _(root: Path) -> Path:
    for each in dvs.CLASSES:
        (root / each).mkdir(parents=True)
        for i in range(2):
            (root / each / f"cifar10_{each}_{i}.aedat").write_bytes(b"#!AER-DAT2.0\r\n" + bytes(16))
    return root / "ship" / "cifar10_ship_1.aedat"


@writer("nmnist")
def _(root: Path) -> Path:
    for half, count in sets.NMNIST.items():
        for i in range(count):
            (root / half / str(i)).mkdir(parents=True, exist_ok=True)
            write(root / half / str(i) / f"{i + 1:05d}.bin", [(5, i, i, 1)])
    return root / "Test" / "4" / "00005.bin"


@writer("dvs128-gesture")
def _(root: Path) -> Path:
    for half in ("train", "test"):
        for label in range(11):
            (root / half / str(label)).mkdir(parents=True)
            one = np.ones(3, int)
            np.savez(root / half / str(label) / "0.npz", t=one, x=one, y=one, p=one)
    return root / "train" / "7" / "0.npz"


def images(root: Path, halves: tuple[str, str], classes: tuple[str, str], suffix: str) -> Path:
    for folder in [root / half / each for half in halves for each in classes]:
        folder.mkdir(parents=True)
        for i in range(2):
            Image.new("RGB", (8, 8)).save(folder / f"{i}{suffix}")
    return root / halves[0] / classes[0] / f"1{suffix}"


def deny(monkeypatch: pytest.MonkeyPatch, denied: Path) -> None:
    """Opening this file fails."""
    opened = builtins.open

    def refusing(file: Any, *args: Any, **kwargs: Any) -> Any:
        if not isinstance(file, int) and Path(file) == denied:
            raise PermissionError(13, "Permission denied", str(file))
        return opened(file, *args, **kwargs)

    monkeypatch.setattr(builtins, "open", refusing)
    monkeypatch.setattr(io, "open", refusing)


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(dvs, "PER_CLASS", 2)
    monkeypatch.setattr(sets, "NMNIST", {"Train": 10, "Test": 10})
    return tmp_path / "set"


def read_all(name: str, root: Path) -> None:
    dataset = load(name, root, None if name.startswith("cifar1") else 8, unchecked=True)
    for part in (dataset.train, dataset.test):  # of ImageNet nothing is opened before it is read
        part.read(part.labels.argsort())


@pytest.mark.parametrize("name", WRITERS)
def test_a_file_that_may_not_be_read_is_named(name: str, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    denied = WRITERS[name](root)
    deny(monkeypatch, denied)
    with pytest.raises(UsageError) as error:
        read_all(name, root)
    assert re.fullmatch(rf"{denied} cannot be read.*Permission denied.*", str(error.value))
    assert "\n" not in str(error.value)
    assert not list(root.glob(".spikeback/*"))


@pytest.mark.parametrize("name", WRITERS)
def test_data_check_names_it_among_the_broken(name: str, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    denied = WRITERS[name](root)
    deny(monkeypatch, denied)
    finding = check(root)
    assert finding.source == name
    assert [line for line in finding.broken if line.startswith(f"{denied} cannot be read") and "denied" in line]


@pytest.mark.parametrize(
    ("function", "message"),
    [
        ("open", r"cannot write \S+\.npy: Permission denied"),
        ("mkdir", "cannot be made for the cache: Permission denied"),
    ],
)
def test_a_cache_that_may_not_be_written_is_named(
    function: str, message: str, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: Any, *args: Any, **kwargs: Any) -> Any:
        raise PermissionError(13, "Permission denied", str(path))

    WRITERS["cifar10-dvs"](root)
    cache = root.parent / "cache"
    monkeypatch.setattr(f"os.{function}", refuse)
    with pytest.raises(UsageError, match=rf"{message}.*data\.cache$"):
        load("cifar10-dvs", root, 8, cache=cache, events=EventConfig(time_steps=1))
    assert not list(cache.glob("*"))
