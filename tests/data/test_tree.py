"""Folders of images as people have them: taken, or refused with advice that works; `data check` says the same."""

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from spikeback.data import DataConfig, DataModule, EventConfig, load
from spikeback.data.check import check
from spikeback.data.sets.folder import load_folder
from spikeback.errors import UsageError

Draw = Callable[..., np.ndarray]
Tree = Callable[..., Path]


@pytest.fixture
def tree(draw_image: Draw, tmp_path: Path) -> Tree:
    """tree("train/cat", "train/dog", count=3): so many images in each of these folders of tmp_path/set."""

    def draw(*folders: str, count: int = 3) -> Path:
        for folder in folders:
            for i in range(count):
                draw_image(f"set/{folder}/{i}.png")
        return tmp_path / "set"

    return draw


def refusal(root: Path) -> str:
    """What a training says, before it opens a file; `data check` says the same, or names the places it means."""
    with pytest.raises(UsageError) as error:
        load("folder", root)
    message = str(error.value)
    assert "\n" not in message
    try:
        finding = check(root)
        assert not finding.whole
        assert finding.refused is None or finding.refused == message
    except UsageError as other:
        assert str(other) == message or "did you mean" in str(other)  # noqa: PT017
    return message


JUNK = ("Thumbs.db", "desktop.ini", ".DS_Store", "._0.png", "Icon\r", "ehthumbs.db", "THUMBS.DB", ".hidden.png")


@pytest.mark.parametrize("place", ["set", "set/cat", "set/cat/__MACOSX", "set/__MACOSX", "set/.cache", "set/cat/.x"])
def test_what_systems_leave_behind_is_no_image_no_class_and_no_word(tree: Tree, tmp_path: Path, place: str) -> None:
    root = tree("cat", "dog")
    before = load_folder(root)
    (tmp_path / place).mkdir(exist_ok=True)
    for name in JUNK:
        (tmp_path / place / name).write_bytes(b"\0\5\26\7")
    after = load_folder(root)
    assert (after.hash(), after.notes) == (before.hash(), ())
    finding = check(root)
    assert (finding.whole, finding.counts["."]) == (True, {"cat": 3, "dog": 3})
    assert len(finding.notes) == 1  # the test split


def test_files_of_other_kinds_are_left_out_and_named(tree: Tree, draw_image: Draw) -> None:
    root = tree("cat", "dog")
    before = load_folder(root).hash()
    Image.new("L", (9, 9)).save(root / "cat" / "stray.gif")
    draw_image("set/loose.png")
    endings = ".jpg, .jpeg, .png, .bmp, .webp, .ppm, .pgm, .tif, .tiff"
    notes = [
        f"1 left out (the name ends in none of {endings}): {root}/cat/stray.gif",
        f"1 left out (beside the class folders): {root}/loose.png",
    ]
    loaded = load_folder(root)
    assert (loaded.hash(), [*loaded.notes]) == (before, notes)
    assert check(root).whole
    assert notes[0] in check(root).notes
    for name in ("readme.txt", "labels.csv"):
        (root / "dog" / name).write_text("x")
    assert load_folder(root).notes[0].startswith("3 left out (the name ends in none of ")
    assert load_folder(root).notes[0].endswith(f": {root}/cat/stray.gif and others")


@pytest.mark.parametrize("inner", ["dataset", "archive/data", "one/two/three"])
@pytest.mark.parametrize("halves", [[""], ["/train", "/test"], ["/train", "/val"]])
def test_a_folder_that_lies_deeper_is_named(tree: Tree, inner: str, halves: list[str]) -> None:
    root = tree(*(f"{inner}{half}/{each}" for half in halves for each in ("cat", "dog")))
    assert refusal(root).endswith(f"; did you mean data.root={root / inner}?")
    assert len(load_folder(root / inner).classes) == 2
    with pytest.raises(UsageError, match=rf"did you mean {root / inner}\?$"):
        check(root)


def test_several_folders_that_lie_deeper_are_all_named(tree: Tree) -> None:
    root = tree("a/x", "a/y", "b/x", "b/y")
    assert refusal(root).endswith(f"did you mean data.root={root}/a or {root}/b?")


@pytest.mark.parametrize(("folders", "given", "meant"), [
    (("cat", "dog"), "cat", ""),
    (("train/cat", "train/dog", "test/cat", "test/dog"), "train/cat", ""),
    (("train/cat", "train/dog", "test"), "", "train"),
])  # fmt: skip
def test_images_in_the_folder_itself(tree: Tree, folders: tuple[str, ...], given: str, meant: str) -> None:
    root = tree(*folders)
    message = refusal(root / given)
    assert "holds images itself, and no class folders" in message
    assert message.endswith(f"did you mean data.root={root / meant}?")
    assert load_folder(root / meant).classes == ("cat", "dog")


def test_flat_images_alone_get_no_hint(tree: Tree, tmp_path: Path) -> None:
    root = tree("all") / "all"
    assert refusal(root) == (
        f"{root} holds images itself, and no class folders; expected {root}/<class>/ with images in each"
    )


@pytest.mark.parametrize("halves", [[""], ["train/", "test/"], ["train/", "val/"]])
def test_one_class_is_refused(tree: Tree, halves: list[str]) -> None:
    root = tree(*(f"{half}cat" for half in halves))
    where = root / halves[0] if halves[0] else root
    assert refusal(root).startswith(f"{where} holds one class, 'cat'; a network needs two at least")


@pytest.mark.parametrize("names", [("train", "val"), ("Training", "Validation"), ("TRAIN", "valid")])
def test_val_alone_is_the_test_split(tree: Tree, names: tuple[str, str]) -> None:
    root = tree(*(f"{half}/{each}" for half in names for each in ("cat", "dog")))
    loaded = load_folder(root)
    assert (len(loaded.train), len(loaded.test), loaded.held_out) == (6, 6, None)
    assert loaded.provenance.endswith(f"; {names[1]}/ is the test split")
    finding = check(root)
    assert (finding.whole, finding.notes) == (True, [f"{names[1]}/ will be the test split"])
    module = DataModule(DataConfig("folder", str(root), batch_size=1, held_out=0.4), 0)
    module.setup()
    assert module.sizes == {"train": 4, "held_out": 2, "test": 6}


def halves(root: Path, use_all: bool = False) -> DataModule:
    module = DataModule(DataConfig("folder", str(root), batch_size=1, crop_padding=0), 0, use_all=use_all)
    module.setup()
    return module


def test_val_beside_test_is_held_out(tree: Tree) -> None:
    root = tree(*(f"{half}/{each}" for half in ("train", "val", "test") for each in ("cat", "dog")))
    loaded, module = load_folder(root), halves(root)
    assert module.sizes == {"train": 6, "held_out": 6, "test": 6}
    read = lambda half: torch.stack([
        torch.from_numpy(np.array(Image.open(path))).permute(2, 0, 1) for path in sorted((root / half).glob("*/*"))
    ])  # fmt: skip
    scaled = lambda x: (x / 255 - module.mean[:, None, None]) / module.std[:, None, None]
    for loader, half in ((module.val_dataloader(), "val"), (module.test_dataloader(), "test")):
        assert torch.equal(torch.cat([x for x, _ in loader]), scaled(read(half)))
    seen = sorted(x.numpy().tobytes() for x, _ in module.train_dataloader())
    assert seen == sorted(x.numpy().tobytes() for x in scaled(read("train")))
    assert torch.allclose(module.mean, (read("train") / 255).mean((0, 2, 3)))
    assert loaded.provenance.endswith("; val/ is held out")
    assert check(root).notes == ["val/ will be held out"]
    unused = halves(root, use_all=True)  # best on the test images: the held-out ones are trained on in no case
    assert (unused.sizes["train"], unused.sizes["held_out"]) == (6, 0)
    other = halves(tree("val/cat", "val/dog", count=2).rename(root.parent / "moved"))
    assert other.split_hash == module.split_hash  # by position, the same


def test_recordings_filmed_of_images_hold_the_same_out(tree: Tree, tmp_path: Path) -> None:
    root = tree(*(f"{half}/{each}" for half in ("train", "val", "test") for each in ("cat", "dog")), count=2)
    events = EventConfig(time_steps=1, source="folder", sensor=8, roll=0)
    config = DataConfig("simulated-dvs", str(root), 8, 2, cache=str(tmp_path / "cache"), events=events)
    module = DataModule(config, 0)
    module.setup()
    assert (module.sizes, module.mirror) == ({"train": 4, "held_out": 4, "test": 4}, None)
    assert module._held_out.tolist() == [4, 5, 6, 7]


ALONE = "alone; expected both train/ and test/"


def test_halves_that_lack_the_other_say_how_to_go_on(tree: Tree) -> None:
    root = tree("train/cat", "train/dog")
    advice = f"; data.root={root / 'train'} takes a fifth of every class as test split"
    assert refusal(root) == f"data.root={root} has train/ {ALONE}{advice}"
    assert (len(load_folder(root / "train").train), len(load_folder(root / "train").test)) == (4, 2)
    (root / "train").rename(root / "val")
    tree("test/cat", "test/dog")
    assert refusal(root).startswith(f"data.root={root} has val/ and test/ {ALONE}")


def test_two_folders_of_one_meaning_are_refused(tree: Tree) -> None:
    root = tree("train/cat", "training/cat", "test/cat")
    with pytest.raises(UsageError, match=r"set/train and .*set/training mean the same; bring them together"):
        load_folder(root)


@pytest.mark.parametrize(("name", "found"), [("a.gif", ".gif"), ("a.HEIC", ".HEIC"), ("names", "names")])
def test_a_class_of_other_files_names_what_they_are(tree: Tree, name: str, found: str) -> None:
    root = tree("cat", "dog")
    (root / "emu").mkdir()
    (root / "emu" / name).write_bytes(b"GIF89a")
    with pytest.raises(UsageError, match=rf"set/emu is a class without images .*, it holds {found}; convert these"):
        load_folder(root)
    assert check(root).missing == [f"{root}/emu is empty"]


def test_names_in_any_script_and_links_are_taken(tree: Tree, tmp_path: Path) -> None:
    root = tree("猫 und Kätzchen", "dog [bold]'s & co", "{x}")
    (root / "dog [bold]'s & co" / "ein Bild.PNG").symlink_to(root / "{x}" / "0.png")
    (tmp_path / "else").mkdir()
    (root / "linked").symlink_to(tmp_path / "else")
    for i in range(2):
        Image.new("RGB", (8, 8)).save(tmp_path / "else" / f"{i}.png")
    loaded = load_folder(root)
    assert loaded.classes == ("dog [bold]'s & co", "linked", "{x}", "猫 und Kätzchen")
    assert len(loaded.train) + len(loaded.test) == 12
    assert check(root).whole


def test_a_link_to_nothing_is_named(tree: Tree) -> None:
    root = tree("cat", "dog")
    (root / "cat" / "9.png").symlink_to(root / "nowhere.png")
    with pytest.raises(UsageError, match=r"set/cat/9\.png cannot be read as an image: .*No such file"):
        load_folder(root)
    assert check(root).broken[0].startswith(f"{root}/cat/9.png cannot be read as an image")


@pytest.mark.skipif(sys.platform != "linux", reason="names there are text")
def test_a_name_that_is_no_text_is_taken(tree: Tree) -> None:
    root = tree("cat", "dog")
    (root / "cat" / "0.png").rename(root / "cat" / b"\xff.png".decode("utf-8", "surrogateescape"))
    assert len(load_folder(root).train) == 4
    assert check(root).whole


def test_training_on_one_class_writes_nothing(
    tree: Tree, tmp_path: Path, refused: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    root, out = tree("cat"), tmp_path / "run"
    line = refused("fit", "--data", "folder", "--data.root", root, "--out", out, alone=True)
    assert "holds one class, 'cat'" in line
    assert not out.exists()


def test_hints_are_the_same_where_the_folder_given_or_meant_is_a_link(tree: Tree, tmp_path: Path) -> None:
    root = tree("in/cat", "in/dog")
    (tmp_path / "given").symlink_to(root)
    (tmp_path / "above").mkdir()
    (tmp_path / "above" / "meant").symlink_to(root / "in")
    for given, meant in ((tmp_path / "given", "in"), (tmp_path / "above", "meant")):
        assert refusal(given).endswith(f"did you mean data.root={given / meant}?")
        with pytest.raises(UsageError, match=f"did you mean {given / meant}"):
            check(given)
