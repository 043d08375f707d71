"""`spikeback data check`: every layout is recognised, and every fault named."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from spikeback.cli.main import main
from spikeback.data import DataConfig, DataModule, load
from spikeback.data import check as checking
from spikeback.data.check import check
from spikeback.data.sets import dvs128_gesture as gesture
from spikeback.data.sets import layouts
from spikeback.data.sheet import GAP, LABEL, TILE, contact_sheet, image
from spikeback.errors import UsageError

from .cifar_files import write_cifar10
from .conftest import forbid


@pytest.fixture
def folder(draw_image: Callable[..., np.ndarray], tmp_path: Path) -> Path:
    for half, count in (("train", 6), ("test", 2)):
        for name in ("cat", "dog"):
            for i in range(count):
                draw_image(f"pets/{half}/{name}/{i}.png")
    return tmp_path / "pets"


def test_a_folder_of_images(folder: Path) -> None:
    finding = check(folder)
    assert (finding.source, finding.whole, finding.checked) == ("folder", True, 16)
    assert finding.counts == {"train": {"cat": 6, "dog": 6}, "test": {"cat": 2, "dog": 2}}
    assert {name: len(samples) for name, samples in finding.samples.items()} == {"cat": 6, "dog": 6}
    assert [(half, [*classes]) for half, classes in finding.counts.items()] == [
        ("train", ["cat", "dog"]),
        ("test", ["cat", "dog"]),
    ]


def test_the_split_hash_is_that_of_a_training(folder: Path, tmp_path: Path) -> None:
    write_cifar10(tmp_path)
    for name, root in (("folder", folder), ("folder", folder / "train")):
        module = DataModule(DataConfig(name, str(root), batch_size=1), 0)
        module.setup()
        assert [*check(root).hashes.values()] == [module.split_hash]


def test_every_broken_file_is_named(folder: Path) -> None:
    (folder / "train" / "cat" / "2.png").write_bytes(b"no image")
    (folder / "test" / "dog" / "notes.txt").touch()
    (folder / "test" / "dog" / "1.png").unlink()
    (folder / "test" / "dog" / "1.png").mkdir()
    finding = check(folder)
    assert [line.split(" ")[0].rpartition("/")[2] for line in finding.broken] == ["2.png", "1.png"]
    assert not finding.missing
    assert [note for note in finding.notes if f"{folder}/test/dog/notes.txt" in note and "left out" in note]
    assert len(finding.samples["cat"]) == 5


def test_most_opens_some_evenly_spread(folder: Path) -> None:
    (folder / "train" / "cat" / "1.png").write_bytes(b"no image")
    assert (check(folder, 4).checked, check(folder, 4).whole) == (4, True)  # every fourth file
    assert not check(folder, 999).whole


def test_most_bounds_what_is_decoded_for_the_sheet_too(
    draw_image: Callable[..., np.ndarray], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for kind in range(25):
        for i in range(10):
            draw_image(f"many/k{kind:02d}/{i}.png")
    finding = check(tmp_path / "many")
    assert len(finding.samples) == 20
    assert {len(samples) for samples in finding.samples.values()} == {8}
    decoded, decode = [], layouts.decode_one
    monkeypatch.setattr(layouts, "decode_one", lambda path: decoded.append(path) or decode(path))
    check(tmp_path / "many", 5)
    assert len(set(decoded)) == 5


@pytest.mark.parametrize("fault", ["size", "single", "wnid"])
def test_what_load_refuses_is_not_whole(folder: Path, fault: str, capsys: pytest.CaptureFixture[str]) -> None:
    root = folder / "train"
    if fault == "size":
        Image.new("RGB", (9, 5)).save(root / "dog" / "3.png")
    else:
        for path in [*(root / "dog").iterdir()][1:]:
            path.unlink()
        for name in ("cat", "dog") if fault == "wnid" else ():
            (root / name).rename(root / f"n0000000{len(list((root / name).iterdir()))}")
    with pytest.raises(UsageError) as error:
        load("folder", root)
    finding = check(root)
    assert (finding.whole, finding.refused) == (False, str(error.value))
    assert ("data.size" in str(finding.refused)) == (fault == "size")
    assert any("data.name=imagenet needs them" in note for note in finding.notes) == (fault == "wnid")
    with pytest.raises(SystemExit):
        main(["data", "check", str(root), "--sheet", str(folder / "sheet.png")])
    typed = str(error.value).replace("data.size=", "--data.size ")
    assert f"refused: {typed}" in capsys.readouterr().out


def test_a_class_that_cannot_be_read_is_broken_and_the_others_are_checked(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "test" / "dog" / "1.png").write_bytes(b"no image")
    forbid(monkeypatch, folder / "train" / "cat")
    broken = check(folder).broken
    assert broken[0] == f"{folder}/train/cat cannot be read: Permission denied"
    assert f"{folder}/test/dog/1.png cannot be read as an image" in broken[1]
    forbid(monkeypatch, folder / "train")
    with pytest.raises(UsageError, match="train cannot be read: Permission denied"):
        check(folder)


def gestures(root: Path, classes: int) -> None:
    t = np.arange(20)
    for half in gesture.HALVES:
        for label in range(classes):
            path = root / half / str(label) / "0.npz"
            path.parent.mkdir(parents=True, exist_ok=True)
            np.savez(path, t=t, x=t, y=t, p=t % 2)


def test_gestures_as_load_wants_them(tmp_path: Path) -> None:
    gestures(tmp_path, 11)
    assert (check(tmp_path).source, check(tmp_path).whole) == ("dvs128-gesture", True)
    (tmp_path / "test" / "3" / "0.npz").rename(tmp_path / "test" / "3" / "1.aedat")
    assert not check(tmp_path).whole
    gestures(tmp_path / "few", 3)
    finding = check(tmp_path / "few")
    assert "lacks the class folder 3" in str(finding.refused)


def test_gestures_without_labels_are_not_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checking, "_read", lambda path, layout: torch.zeros(1, 2, 4, 4))
    for half in gesture.HALVES:
        (tmp_path / f"trials_to_{half}.txt").write_text(f"{half}.aedat\n")
        (tmp_path / f"{half}.aedat").touch()
    finding = check(tmp_path)
    assert (finding.source, finding.whole) == ("dvs128-gesture", False)
    assert "lacks 1 files that trials_to_train.txt lists, the first is train_labels.csv" in str(finding.refused)


def test_idx_files_are_those_that_load_reads(write_idx: Callable[..., Any], tmp_path: Path) -> None:
    write_idx("set", packed=True, published=True)
    write_idx("set", published=True)
    (tmp_path / "set" / "train-images-idx3-ubyte.gz").write_bytes(b"no archive")  # not read: the plain one is
    assert check(tmp_path / "set").whole
    (tmp_path / "set" / "train-labels-idx1-ubyte").write_bytes(b"no labels")
    assert not check(tmp_path / "set").whole


def test_missing_halves_classes_and_files_are_named(folder: Path) -> None:
    for path in (folder / "test" / "cat").iterdir():
        path.unlink()
    (folder / "test" / "cat").rmdir()
    (folder / "train" / "owl").mkdir()
    missing = check(folder).missing
    for name in ("test/cat is not a folder", "test/owl is not a folder", "train/owl is empty"):
        assert f"{folder}/{name}" in missing
    assert len(missing) == 3


def test_cifar_with_other_bytes_is_broken_and_without_a_file_incomplete(tmp_path: Path) -> None:
    write_cifar10(tmp_path)
    (tmp_path / "cifar-10-batches-py" / "data_batch_4").unlink()
    finding = check(tmp_path)
    assert (finding.source, len(finding.missing), len(finding.broken)) == ("cifar10", 1, 6)
    assert "data_batch_4 is missing" in finding.missing[0]
    assert all("is not as published" in line for line in finding.broken)


def test_fashion_mnist(write_idx: Callable[..., Any], tmp_path: Path) -> None:
    write_idx("set", packed=True, published=True)
    finding = check(tmp_path / "set")
    assert (finding.source, finding.whole) == ("fashion-mnist", True)
    assert sum(finding.counts["train"].values()) == 40
    (tmp_path / "set" / "t10k-labels-idx1-ubyte.gz").unlink()
    assert "t10k-labels-idx1-ubyte" in check(tmp_path / "set").missing[0]
    (tmp_path / "set" / "t10k-images-idx3-ubyte.gz").write_bytes(b"no archive")
    assert "t10k-images-idx3-ubyte.gz cannot be read" in check(tmp_path / "set").broken[0]


def test_a_folder_like_nothing_known_lists_what_is(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").touch()
    with pytest.raises(UsageError, match=r"is like no dataset; expected one of these: .*cifar-10-batches-py/"):
        check(tmp_path)
    with pytest.raises(UsageError, match=r"notes\.txt is not a folder"):
        check(tmp_path / "notes.txt")


def test_a_contact_sheet_shows_each_sample_in_its_row(tmp_path: Path) -> None:
    red = torch.tensor([200, 0, 0], dtype=torch.uint8)[:, None, None].expand(3, 5, 5)
    frames = torch.zeros(4, 2, 6, 6)
    frames[1, 1] = 3
    path = contact_sheet({"red": [red, red], "events": [frames]}, tmp_path / "sheet.png")
    with Image.open(path) as sheet:
        assert sheet.size == (LABEL + 2 * (TILE + GAP) + GAP, 2 * (TILE + GAP) + GAP)
        middle = [(LABEL + column * (TILE + GAP) + TILE // 2, TILE // 2 + GAP) for column in (0, 1)]
        assert [sheet.getpixel(where) for where in middle] == [(200, 0, 0)] * 2
        assert sheet.getpixel((middle[0][0], middle[0][1] + TILE + GAP)) == (255, 176, 0)
        assert sheet.getpixel((middle[1][0], middle[1][1] + TILE + GAP)) == (255, 255, 255)
    assert image(torch.zeros(3, 2, 4, 4)).unique().tolist() == [16, 18, 26]


def test_the_command_says_what_a_folder_is(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["data", "check", str(folder), "--sheet", str(tmp_path / "sheet.png")])
    said = capsys.readouterr().out
    assert f"{folder} is folder: use it with --data.name folder --data.root {folder}" in said
    assert "16 files opened, 0 broken, 0 missing" in said
    assert (tmp_path / "sheet.png").stat().st_size > 1000
    (folder / "train" / "cat" / "2.png").write_bytes(b"no image")
    with pytest.raises(SystemExit) as stop:
        main(["data", "check", str(folder), "--sheet", str(tmp_path / "sheet.png")])
    assert stop.value.code == 1
    assert f"broken: {folder / 'train' / 'cat' / '2.png'} cannot be read" in capsys.readouterr().out


@pytest.mark.parametrize("words", [["nowhere"], [".", "--most", "0"], []])
def test_mistakes_are_one_line(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["data", "check", *words])
    assert stop.value.code == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert words or "needs a FOLDER" in said
