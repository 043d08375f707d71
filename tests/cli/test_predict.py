"""predict: an image or a folder of any kind of images; what is none, or is broken, is named and the rest is done."""

import csv
import json
import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from spikeback.data import DataConfig, DataModule
from spikeback.data.decode import decode_one
from spikeback.errors import UsageError
from spikeback.export.weights import load_trained

Command = Callable[..., Any]


@pytest.fixture
def predict(command: Command, finished: Path, tmp_path: Path) -> Command:
    """predict(where): its outcome and the rows of predictions.csv, by file; None if there is none."""

    def call(where: Path) -> tuple[Any, dict[str, dict[str, str]] | None]:
        outcome = command("predict", finished / "vanilla-seed0", "--images", where, "--out", tmp_path / "out")
        assert "Traceback" not in outcome.err
        table = tmp_path / "out" / "predictions.csv"
        return outcome, rows(table) if table.is_file() else None

    return call


def rows(table: Path) -> dict[str, dict[str, str]]:
    with table.open(newline="", encoding="utf-8", errors="surrogateescape") as file:
        return {row["file"]: row for row in csv.DictReader(file)}


def test_a_folder_with_broken_images_gives_the_rest_and_names_them(
    predict: Command, draw_tree: Callable[..., Path]
) -> None:
    root = draw_tree("some")
    (root / "some" / "3.png").write_bytes(b"")
    (root / "some" / "5.png").write_bytes((root / "some" / "5.png").read_bytes()[:60])
    (root / "some" / "x.jpg").symlink_to(root / "nowhere")
    (root / "some" / "Thumbs.db").write_text("x")
    (root / "some" / "notes.txt").write_text("x")
    outcome, found = predict(root)
    assert outcome.code == 1
    assert [*found] == [str(root / "some" / f"{i}.png") for i in (0, 1, 2, 4, 6, 7, 8, 9)]
    broken = re.findall(r"^broken: (\S+) cannot be read as an image", outcome.out, re.MULTILINE)
    assert broken == [str(root / "some" / name) for name in ("3.png", "5.png", "x.jpg")]
    (note,) = re.findall(r"^note: .*", outcome.out, re.MULTILINE)
    assert str(root / "some" / "notes.txt") in note


def test_classes_are_counted(predict: Command, draw_tree: Callable[..., Path], finished: Path) -> None:
    outcome, found = predict(draw_tree("a", "b"))
    assert outcome.code == 0
    counts = Counter(row["class"] for row in found.values())
    for name in json.loads((finished / "results.json").read_text())["dataset"]["classes"]:
        assert re.search(rf"{re.escape(name)} +│ +{counts[name]} ", outcome.out)
    assert re.search(r"all +│ +20 ", outcome.out)


def test_one_file_is_predicted_as_in_its_folder(predict: Command, draw_tree: Callable[..., Path]) -> None:
    root = draw_tree("some")
    _, together = predict(root)
    outcome, alone = predict(root / "some" / "7.png")
    assert outcome.code == 0
    ((path, row),) = alone.items()
    expected = together[path]
    assert path == str(root / "some" / "7.png")
    for name, value in row.items():  # a batch of another size may round otherwise
        assert value == expected[name] or abs(float(value) - float(expected[name])) < 1e-5


def test_a_file_of_any_name_and_any_script_is_predicted(predict: Command, tmp_path: Path) -> None:
    folder = tmp_path / "größer [b]"
    folder.mkdir()
    for name in ("Bild, mit Komma.PNG", "猫.webp", "[red]"):
        Image.new("RGB", (8, 8)).save(folder / name, "PNG")
    outcome, found = predict(folder / "[red]")
    assert (outcome.code, [*found]) == (0, [str(folder / "[red]")])
    outcome, found = predict(folder)
    assert [*found] == [str(folder / name) for name in ("Bild, mit Komma.PNG", "猫.webp")]
    assert str(folder / "[red]") in outcome.out


def test_a_name_that_is_no_text_is_shown_as_near_as_text_can(predict: Command, tmp_path: Path) -> None:
    name = b"\xff.png".decode("utf-8", "surrogateescape")
    (tmp_path / "odd").mkdir()
    try:
        Image.new("RGB", (8, 8)).save(tmp_path / "odd" / name)
    except OSError:
        pytest.skip("names of files are text here")
    _, found = predict(tmp_path / "odd")
    assert [*found] == [str(tmp_path / "odd" / "\N{REPLACEMENT CHARACTER}.png")]


def pixels(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


def write_grey(path: Path) -> None:
    Image.fromarray(pixels(9, 7)).save(path)


def write_palette(path: Path) -> None:
    Image.fromarray(pixels(9, 7, 3)).quantize(8).save(path, transparency=b"\x00\x10")


def write_rgba(path: Path) -> None:
    Image.fromarray(pixels(9, 7, 4)).save(path)


def write_grey_alpha(path: Path) -> None:
    Image.fromarray(pixels(9, 7, 4)).convert("LA").save(path)


def write_bits(path: Path) -> None:
    Image.fromarray(pixels(9, 7)).convert("1").save(path)


def write_sixteen(path: Path) -> None:
    Image.fromarray(pixels(9, 7).astype(np.uint16) * 256 + 7).save(path)


def write_turned(path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(pixels(9, 7, 3)).save(path, exif=exif)


def write_cmyk(path: Path) -> None:
    Image.fromarray(pixels(9, 7, 4), "CMYK").save(path, "TIFF")


GOOD = [write_grey, write_palette, write_rgba, write_grey_alpha, write_bits, write_sixteen, write_turned, write_cmyk]


@pytest.mark.parametrize("write", GOOD, ids=lambda write: write.__name__)
def test_images_are_seen_as_in_training(write: Callable[[Path], None], tmp_path: Path, finished: Path) -> None:
    """What a folder of such images trains on is what the network sees of each."""
    for name in ("a", "b"):
        (tmp_path / "set" / name).mkdir(parents=True)
        for i in range(2):
            write(tmp_path / "set" / name / f"{i}.png")
    module = DataModule(DataConfig("folder", str(tmp_path / "set"), 8, 1, crop_padding=0), 0)
    module.setup()
    trained = load_trained(str(finished / "vanilla-seed0"), "best")
    trained.shape = module.shape
    assert torch.equal(trained.view(tmp_path / "set" / "a" / "0.png"), module.images.train.read(torch.tensor([0]))[0])


def write_animated(path: Path) -> None:
    frames = [Image.fromarray(pixels(9, 7, 3)), Image.new("RGB", (7, 9))]
    frames[0].save(path, "GIF", save_all=True, append_images=frames[1:])


def write_moving_png(path: Path) -> None:
    frames = [Image.fromarray(pixels(9, 7, 3)), Image.new("RGB", (7, 9))]
    frames[0].save(path, "PNG", save_all=True, append_images=frames[1:])


def write_pages(path: Path) -> None:
    Image.new("L", (7, 9)).save(path, "TIFF", save_all=True, append_images=[Image.new("L", (7, 9))])


def write_float(path: Path) -> None:
    Image.fromarray(pixels(9, 7).astype(np.float32) / 255).save(path, "TIFF")


def write_long(path: Path) -> None:
    Image.fromarray(pixels(9, 7).astype(np.int32) << 16).save(path, "TIFF")


BAD = {
    write_animated: "it holds 2 images, save the one that is meant",
    write_moving_png: "it holds 2 images",
    write_pages: "it holds 2 images",
    write_float: r"its pixels have 32 bits \(mode F\)",
    write_long: r"its pixels have 32 bits \(mode I\)",
}


@pytest.mark.parametrize(("write", "reason"), BAD.items(), ids=lambda case: getattr(case, "__name__", ""))
def test_images_that_would_not_be_seen_whole_are_named(
    write: Callable[[Path], None], reason: str, tmp_path: Path
) -> None:
    write(tmp_path / "x.png")
    with pytest.raises(UsageError, match=rf"x\.png cannot be read as an image: .*{reason}"):
        decode_one(tmp_path / "x.png")


def test_a_camera_file_with_a_preview_is_its_first_image(tmp_path: Path) -> None:
    first = Image.fromarray(pixels(16, 16, 3))
    first.save(tmp_path / "x.jpg", "MPO", save_all=True, append_images=[Image.new("RGB", (8, 8))])
    first.save(tmp_path / "y.jpg", "JPEG")
    assert torch.equal(decode_one(tmp_path / "x.jpg"), decode_one(tmp_path / "y.jpg"))


def test_a_network_of_imagenet_sees_the_middle_as_it_was_tested(tmp_path: Path, finished: Path) -> None:
    for part in ("train", "val"):
        for wnid in ("n01440764", "n01443537"):
            (tmp_path / part / wnid).mkdir(parents=True)
            Image.fromarray(pixels(50, 70, 3)).save(tmp_path / part / wnid / "0.JPEG")
    from spikeback.data import load

    trained = load_trained(str(finished / "vanilla-seed0"), "best")
    trained.shape, trained.recipe.data.name = (3, 32, 32), "imagenet"
    seen = trained.view(tmp_path / "val" / "n01440764" / "0.JPEG")
    assert torch.equal(seen, load("imagenet", tmp_path, 32).test.read(torch.tensor([0]))[0])


@pytest.mark.parametrize(("out", "written"), [
    ("new/folder", "new/folder/predictions.csv"), ("new/p.csv", "new/p.csv"), ("new/P.CSV", "new/P.CSV"),
    ("there.csv", "there.csv/predictions.csv"), ("", "predictions.csv"),
])  # fmt: skip
def test_out_is_a_folder_or_a_csv_file(
    out: str, written: str, command: Command, finished: Path, draw_tree: Callable[..., Path], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    image = draw_tree("some") / "some" / "0.png"
    (tmp_path / "there.csv").mkdir()
    words = ["--out", out] if out else []
    assert command("predict", finished / "vanilla-seed0", "--images", image, *words).code == 0
    assert len(rows(tmp_path / written)) == 1


def test_out_that_is_another_file_is_refused_and_kept(
    refused: Callable[..., str], finished: Path, draw_tree: Callable[..., Path], tmp_path: Path
) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    words = ["predict", finished / "vanilla-seed0", "--images", draw_tree("some"), "--out", tmp_path / "notes.txt"]
    line = refused(*words, alone=True)
    assert f"--out {tmp_path / 'notes.txt'} is a file; give a folder for predictions.csv, or the name of a .csv" in line
    assert (tmp_path / "notes.txt").read_text() == "mine"
