"""`spikeback data check` on trees of many files: what lacks and what does not belong there."""

import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from spikeback.data import load
from spikeback.data.check import check
from spikeback.data.sets import cifar10_dvs as dvs
from spikeback.data.sets import nmnist as sets
from spikeback.errors import UsageError

RNG = np.random.default_rng(0)
HEADER = b"#!AER-DAT2.0\r\n"


def test_a_part_of_imagenet(tmp_path: Path) -> None:
    for folder in [tmp_path / part / wnid for part in ("train", "val") for wnid in ("n01440764", "n01443537")]:
        folder.mkdir(parents=True)
        Image.fromarray(RNG.integers(0, 256, (9, 9, 3), dtype=np.uint8)).save(folder / "a.JPEG")
    finding = check(tmp_path)
    assert (finding.source, finding.whole) == ("imagenet", True)
    assert finding.notes == ["a part of ImageNet: 2 of 1000 classes"]
    (tmp_path / "val").rename(tmp_path / "elsewhere")
    assert check(tmp_path).missing == [f"{tmp_path / 'val'} is not a folder"]


def test_classes_named_as_imagenets_in_train_and_test_are_a_folder(
    tmp_path: Path, draw_image: Callable[..., np.ndarray]
) -> None:
    for half in ("train", "test"):
        for wnid in ("n01440764", "n01443537"):
            draw_image(f"set/{half}/{wnid}/0.png")
    finding = check(tmp_path / "set")
    assert (finding.source, finding.whole, finding.missing) == ("folder", True, [])
    assert "data.name=imagenet needs them in train/ and in val/" in finding.notes[0]
    assert len(load(finding.source, tmp_path / "set").test) == 2
    (tmp_path / "set" / "test").rename(tmp_path / "set" / "val")
    draw_image("set/test/ILSVRC2012_test_00000001.JPEG")  # its test images are not sorted
    assert (check(tmp_path / "set").source, check(tmp_path / "set").whole) == ("imagenet", True)
    (tmp_path / "set" / "val").rename(tmp_path / "elsewhere")
    finding = check(tmp_path / "set")
    assert (finding.source, finding.missing) == ("imagenet", [f"{tmp_path / 'set' / 'val'} is not a folder"])


def aedat(path: Path, count: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pairs = np.stack([RNG.integers(0, 1 << 15, count), np.arange(count)], 1)
    path.write_bytes(HEADER + pairs.astype(">u4").tobytes())


@pytest.mark.slow
def test_cifar10_dvs_with_every_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dvs, "PER_CLASS", 10)
    for name in dvs.CLASSES:
        for i in range(10):
            aedat(tmp_path / name / f"cifar10_{name}_{i}.aedat", 50)
    finding = check(tmp_path)
    assert (finding.source, finding.whole, finding.checked) == ("cifar10-dvs", True, 100)
    assert [*finding.hashes] == [f"split {split}" for split in dvs.SPLITS[:-1]]
    assert finding.samples["cat"][0].shape == (1, 2, 128, 128)
    broken = tmp_path / "bird" / "cifar10_bird_3.aedat"
    broken.write_bytes(broken.read_bytes()[:-3])
    (tmp_path / "cat" / "cifar10_cat_7.aedat").unlink()
    (tmp_path / "dog").rename(tmp_path / "wolf")
    aedat(tmp_path / "ship" / "ship_1.aedat", 5)
    finding = check(tmp_path)
    assert finding.broken[0] == (
        f"{tmp_path / 'ship' / 'ship_1.aedat'} does not belong here; "
        "expected only cifar10_ship_0.aedat to cifar10_ship_9.aedat"
    )
    assert finding.broken[1].startswith(f"{broken}: ")
    assert f"at byte {len(HEADER) + 49 * 8} " in finding.broken[1]
    assert len(finding.broken) == 2
    assert finding.missing == [
        f"{tmp_path / 'dog'} is not a folder",
        f"{tmp_path / 'cat'} lacks 1 of 10 files, first cifar10_cat_7.aedat",
    ]
    assert not finding.hashes


def test_nmnist_with_a_recording_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sets, "NMNIST", {"Train": 20, "Test": 11})
    for half in sets.NMNIST:
        for i in range(20 if half == "Train" else 10):
            path = tmp_path / half / str(i % 10) / f"{i + 1:05d}.bin"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(struct.pack(">BBBH", i, i, 128, 100) * 3)
    finding = check(tmp_path)
    assert (finding.source, finding.broken) == ("nmnist", [])
    assert finding.missing == [f"{tmp_path / 'Test'} lacks 1 of 11 files, first 00011.bin"]


@pytest.mark.parametrize("fault", ["renamed", "one more", "twice"])
def test_nmnist_with_a_wrong_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: str) -> None:
    monkeypatch.setattr(sets, "NMNIST", {"Train": 20, "Test": 10})
    for half, count in sets.NMNIST.items():
        for i in range(count):
            path = tmp_path / half / str(i % 10) / f"{i + 1:05d}.bin"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(struct.pack(">BBBH", i, i, 128, 100) * 3)
    assert check(tmp_path).whole
    good, folder = tmp_path / "Test" / "3" / "00004.bin", tmp_path / "Test" / "5"
    lacks = f"{tmp_path / 'Test'} lacks 1 of 10 files, first 00004.bin"
    if fault == "renamed":
        good.rename(good.with_name("4.bin"))
        expected = [f"{good.with_name('4.bin')} does not belong here; expected only 00001.bin to 00010.bin"], [lacks]
    elif fault == "one more":
        (folder / "00011.bin").write_bytes(good.read_bytes())
        expected = [f"{folder / '00011.bin'} does not belong here; expected only 00001.bin to 00010.bin"], []
    else:
        (folder / "00004.bin").write_bytes(good.read_bytes())
        expected = [f"{folder / '00004.bin'} has the number of {good}"], []
    finding = check(tmp_path)
    assert (finding.broken, finding.missing) == expected
    with pytest.raises(UsageError):
        load("nmnist", tmp_path)
