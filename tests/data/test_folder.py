from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.datasets.folder import default_loader

from spikeback.data import decode, read_images
from spikeback.data.images import fit
from spikeback.data.sets import folder
from spikeback.data.sets.folder import load_folder
from spikeback.data.split import hold_out
from spikeback.data.tree import left_out
from spikeback.data.unlabelled import find_images
from spikeback.errors import UsageError

from .conftest import forbid

Draw = Callable[..., np.ndarray]


def tensor(pixels: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(pixels).permute(2, 0, 1)


@pytest.fixture
def pets(draw_image: Draw, tmp_path: Path) -> Path:
    """train/ and test/ with cat and dog, two images each; returns the root."""
    for half in ("train", "test"):
        for name in ("dog/1.png", "dog/2.png", "cat/1.png", "cat/2.png"):
            draw_image(f"pets/{half}/{name}")
    return tmp_path / "pets"


def test_train_and_test_folders_are_the_splits(draw_image: Draw, tmp_path: Path) -> None:
    train = {name: draw_image(f"pets/train/{name}") for name in ("dog/1.png", "cat/10.png", "cat/2.png")}
    test = {name: draw_image(f"pets/test/{name}") for name in ("dog/1.png", "cat/1.png")}
    loaded = load_folder(tmp_path / "pets")
    assert loaded.classes == ("cat", "dog")
    assert loaded.train.labels.tolist() == [0, 0, 1]
    assert loaded.test.labels.tolist() == [0, 1]
    assert torch.equal(loaded.train.images, torch.stack([tensor(train[name]) for name in sorted(train)]))
    assert torch.equal(loaded.test.images, torch.stack([tensor(test[name]) for name in sorted(test)]))
    assert loaded.name == "pets"


def test_class_folders_alone_give_a_fifth_of_every_class_as_test(draw_image: Draw, tmp_path: Path) -> None:
    for name in [f"{kind}/{i}.png" for kind in ("a", "b") for i in range(10)]:
        draw_image(name)
    loaded = load_folder(tmp_path)
    assert loaded.train.labels.tolist() == [0] * 8 + [1] * 8
    assert loaded.test.labels.tolist() == [0] * 2 + [1] * 2
    assert "20% of every class drawn as the test split (seed 0)" in loaded.provenance
    everything = torch.cat([loaded.train.images, loaded.test.images])
    assert len(everything.flatten(1).unique(dim=0)) == 20  # each image in one of the splits
    assert torch.equal(load_folder(tmp_path).test.images, loaded.test.images)


@pytest.mark.parametrize("suffix", ["jpg", "JPG", "jpeg", "png", "bmp", "webp", "WebP", "ppm", "tif", "TIFF"])
def test_every_kind_of_image_is_read(draw_image: Draw, tmp_path: Path, suffix: str) -> None:
    for name in ("a/1", "a/2", "b/1", "b/2"):
        draw_image(f"{name}.{suffix}")
    loaded = load_folder(tmp_path)
    for path, label in ((tmp_path / f"a/{i}.{suffix}", i) for i in (1, 2)):
        with Image.open(path) as image:
            expected = tensor(np.array(image))
        both = torch.cat([loaded.train.images, loaded.test.images])
        assert any(torch.equal(expected, image) for image in both), label


def test_cifar10_as_jpeg_is_known_by_its_content(
    draw_image: Draw, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for half in ("train", "test"):
        for kind in folder.CIFAR10:
            draw_image(f"some/{half}/{kind}/1.jpg", size=(32, 32))
    part = load_folder(tmp_path / "some")
    assert part.name == "some"
    assert part.provenance.endswith("as JPEG: not comparable with published CIFAR-10 numbers")
    monkeypatch.setattr(folder, "CIFAR10_COUNTS", (10, 10))
    for size in (None, 8):
        loaded = load_folder(tmp_path / "some", size)
        assert loaded.name == "CIFAR-10 (JPEG)"
        assert loaded.provenance.startswith(
            "CIFAR-10 re-encoded as JPEG, not comparable with published CIFAR-10 numbers"
        )
    for half in ("train", "test"):
        (tmp_path / "some" / half / "truck").rename(tmp_path / "some" / half / "van")
    (tmp_path / "some").rename(tmp_path / "cifar10-jpeg")
    loaded = load_folder(tmp_path / "cifar10-jpeg")
    assert (loaded.name, loaded.provenance) == ("cifar10-jpeg", "images from the folder cifar10-jpeg")


@pytest.mark.parametrize(("size", "suffix"), [((32, 31), "jpg"), ((32, 32), "png")])
def test_other_images_of_ten_such_classes_are_not_cifar10(
    draw_image: Draw, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: tuple[int, int], suffix: str
) -> None:
    monkeypatch.setattr(folder, "CIFAR10_COUNTS", (10, 10))
    for half in ("train", "test"):
        for kind in folder.CIFAR10:
            draw_image(f"cifar10-jpeg/{half}/{kind}/1.{suffix}", size=size)
    assert load_folder(tmp_path / "cifar10-jpeg").provenance == "images from the folder cifar10-jpeg"


def test_a_folder_that_cannot_be_read_is_named(pets: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    forbid(monkeypatch, pets / "train" / "dog")
    with pytest.raises(UsageError, match=r"train/dog cannot be read: Permission denied$"):
        load_folder(pets)


def test_hidden_files_and_folders_are_ignored(pets: Path) -> None:
    (pets / "train" / "cat" / ".DS_Store").write_bytes(b"x")
    (pets / "train" / ".cache").mkdir()
    (pets / "README.md").write_text("beside the classes, anything may lie")
    assert len(load_folder(pets).train) == 4


def test_greyscale_stays_greyscale_only_if_all_are(draw_image: Draw, tmp_path: Path) -> None:
    grey = draw_image("a/1.png", mode="L")
    for name in ("a/2.png", "b/1.png", "b/2.png"):
        draw_image(name, mode="L")
    assert load_folder(tmp_path).train.images.shape[1:] == (1, 8, 8)
    draw_image("c/1.png")
    draw_image("c/2.png")
    loaded = load_folder(tmp_path)
    images = torch.cat([loaded.train.images, loaded.test.images])
    assert images.shape[1:] == (3, 8, 8)
    assert any(torch.equal(torch.from_numpy(grey).expand(3, -1, -1), image) for image in images)


def test_sixteen_bits_of_grey_are_scaled_not_clipped(tmp_path: Path) -> None:
    for name in ("a/1", "a/2", "b/1", "b/2"):
        (tmp_path / name[0]).mkdir(exist_ok=True)
        Image.fromarray(np.array([[0, 255, 256, 65535]], dtype=np.uint16)).save(tmp_path / f"{name}.png")
    assert load_folder(tmp_path).train.images.flatten().tolist() == [0, 0, 1, 255] * 2


@pytest.mark.parametrize("kind", ["turned", "alpha", "cmyk", "palette"])
def test_odd_images_are_read_as_torchvisions_image_folder_reads_them(tmp_path: Path, kind: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # orientation: to be turned by 90 degrees clockwise
    pixels = np.random.default_rng(0).integers(0, 256, (4, 6, 4), dtype=np.uint8)
    image = {
        "turned": lambda: Image.fromarray(pixels[..., :3]),
        "alpha": lambda: Image.fromarray(pixels),
        "cmyk": lambda: Image.fromarray(pixels, "CMYK"),
        "palette": lambda: Image.fromarray(pixels[..., :3]).quantize(8),
    }[kind]()
    path = tmp_path / ("a.jpg" if kind == "cmyk" else "a.png")
    image.save(path, exif=exif)
    assert torch.equal(decode.decode_one(path), tensor(np.array(default_loader(str(path)))))


def test_size_scales_the_shorter_side_and_crops_the_centre(draw_image: Draw, tmp_path: Path) -> None:
    pixels = [draw_image("a/1.png", size=(12, 30)), draw_image("a/2.png", size=(16, 8))]
    pixels += [draw_image("b/1.png", size=(6, 9)), draw_image("b/2.png", size=(20, 8))]
    train, test = hold_out(torch.tensor([0, 0, 1, 1]), 0.2)
    loaded = load_folder(tmp_path, size=6)
    assert loaded.provenance.endswith("resized to 6 x 6")
    for part, rows in ((loaded.train, train), (loaded.test, test)):
        assert torch.equal(part.images, torch.stack([fit(tensor(pixels[row]), 6, 6) for row in rows.tolist()]))


def test_thousands_of_files_show_progress_on_stderr(
    pets: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(decode, "MANY", 7)
    monkeypatch.setattr(decode, "CHUNK", 3)
    monkeypatch.setenv("FORCE_COLOR", "1")
    loaded = load_folder(pets)
    out, err = capsys.readouterr()
    assert out == ""
    assert "Reading images" in err
    monkeypatch.setattr(decode, "MANY", 8)
    assert load_folder(pets).hash() == loaded.hash()  # chunks change nothing
    assert capsys.readouterr() == ("", "")


def spoil_nested(root: Path) -> str:
    (root / "train" / "dog" / "more.png").mkdir()
    return r"dog/more\.png is a folder within a class; images must lie in .*train/dog itself"


def spoil_content(root: Path) -> str:
    (root / "test" / "cat" / "2.png").write_bytes(b"not an image")
    return r"test/cat/2\.png cannot be read as an image"


def spoil_truncated(root: Path) -> str:
    path = root / "train" / "cat" / "1.png"
    path.write_bytes(path.read_bytes()[:-30])
    return r"train/cat/1\.png cannot be read as an image"


def spoil_empty_class(root: Path) -> str:
    (root / "test" / "emu").mkdir()
    return "test/emu is a class without images"


def spoil_classes(root: Path) -> str:
    (root / "test" / "dog").rename(root / "test" / "fox")
    return "must have the same class folders; 'dog' is in only one of them, train$"


def spoil_half(root: Path) -> str:
    (root / "test").rename(root.parent / "elsewhere")
    return r"data\.root=.*pets has train/ alone; expected both train/ and test/"


def spoil_sizes(root: Path) -> str:
    Image.new("RGB", (9, 5)).save(root / "test" / "cat" / "2.png")
    return r"cat/1\.png is 8 x 8, .*test/cat/2\.png is 9 x 5 pixels; data\.size=32 would"


@pytest.mark.parametrize(
    "spoil",
    [
        spoil_nested,
        spoil_content,
        spoil_truncated,
        spoil_empty_class,
        spoil_classes,
        spoil_half,
        spoil_sizes,
    ],
    ids=lambda spoil: spoil.__name__.removeprefix("spoil_"),
)
def test_each_mistake_in_a_tree_is_named(pets: Path, spoil: Callable[[Path], str]) -> None:
    message = spoil(pets)
    with pytest.raises(UsageError, match=message) as error:
        load_folder(pets)
    assert "\n" not in str(error.value)


def test_a_tree_without_classes_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"holds no class folders; expected .*/<class>/"):
        load_folder(tmp_path)


def test_a_missing_root_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"data\.root=.*nowhere is not a folder"):
        load_folder(tmp_path / "nowhere")


def test_a_class_of_one_image_cannot_be_split(pets: Path) -> None:
    (pets / "train" / "cat" / "2.png").unlink()
    assert len(load_folder(pets).train) == 3  # not split, no matter
    with pytest.raises(UsageError, match="cat holds one image; two are needed"):
        load_folder(pets / "train")


def test_a_class_may_be_called_train(draw_image: Draw, tmp_path: Path) -> None:
    for name in ("plane/1.png", "plane/2.png", "train/1.png", "train/2.png"):
        draw_image(name)
    assert load_folder(tmp_path).classes == ("plane", "train")


MEAN, STD = torch.tensor([0.5, 0.25, 0.125]), torch.tensor([0.5, 0.25, 2.0])


def test_images_to_classify_are_read_as_trained(draw_image: Draw, tmp_path: Path) -> None:
    pixels = {name: draw_image(name) for name in ("b.png", "a.bmp", "deep/down/c.png")}
    (tmp_path / ".hidden").mkdir()
    (tmp_path / ".hidden" / "x.txt").write_text("x")
    paths, x = read_images(tmp_path, (3, 8, 8), MEAN, STD)
    assert paths == [tmp_path / name for name in sorted(pixels)]
    for name, got in zip(sorted(pixels), x, strict=True):
        assert torch.equal(got, (tensor(pixels[name]) / 255 - MEAN[:, None, None]) / STD[:, None, None])


def test_images_to_classify_take_size_and_colour_of_training(draw_image: Draw, tmp_path: Path) -> None:
    draw_image("colour.png", size=(20, 30))
    draw_image("grey.png", size=(9, 9), mode="L")
    assert read_images(tmp_path, (1, 6, 4), MEAN[:1], STD[:1])[1].shape == (2, 1, 6, 4)
    x = read_images(str(tmp_path), (3, 6, 4), torch.zeros(3), torch.ones(3))[1]
    assert x.shape == (2, 3, 6, 4)
    assert torch.equal(x[1, 0], x[1, 1])  # grey in all channels


def test_what_cannot_be_classified_is_named(draw_image: Draw, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="nowhere is neither a file nor a folder"):
        read_images(tmp_path / "nowhere", (3, 8, 8), MEAN, STD)
    with pytest.raises(UsageError, match="holds no images"):
        read_images(tmp_path, (3, 8, 8), MEAN, STD)
    draw_image("1.png")
    (tmp_path / "notes.txt").write_text("x")
    assert read_images(tmp_path, (3, 8, 8), MEAN, STD)[0] == [tmp_path / "1.png"]
    (tmp_path / "notes.txt").rename(tmp_path / "2.jpg")
    with pytest.raises(UsageError, match=r"2\.jpg cannot be read as an image"):
        read_images(tmp_path, (3, 8, 8), MEAN, STD)


def test_a_folder_of_images_to_classify_that_cannot_be_read_is_named(
    draw_image: Draw, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    draw_image("new/1.png")
    draw_image("new/more/2.png")
    (tmp_path / "new" / "again").symlink_to(tmp_path / "new")
    mean = std = torch.ones(3)
    assert [path.name for path in read_images(tmp_path / "new", (3, 8, 8), mean, std)[0]] == ["1.png", "2.png"]
    forbid(monkeypatch, tmp_path / "new" / "more")
    with pytest.raises(UsageError, match=r"new/more cannot be read: Permission denied$"):
        read_images(tmp_path / "new", (3, 8, 8), mean, std)


def test_links_to_folders_of_images_are_followed_but_not_in_circles(draw_image: Draw, tmp_path: Path) -> None:
    for name in ("elsewhere/a.png", "elsewhere/deep/b.png", "new/c.png", "new/sub/d.png"):
        draw_image(name)
    new, elsewhere = tmp_path / "new", tmp_path / "elsewhere"
    (new / "linked").symlink_to(elsewhere)
    (new / "image.png").symlink_to(elsewhere / "a.png")
    (new / "sub" / "beside").symlink_to(new / "linked")  # as training takes two classes that are one folder
    circles = {
        new / "again": new,
        new / "up": tmp_path,
        new / "sub" / "up": new,
        elsewhere / "back": new,  # round two corners
        elsewhere / "deep" / "self": elsewhere,
    }
    for place, target in (circles | {new / "loop": new / "loop"}).items():
        place.symlink_to(target)
    expected = [
        "c.png", "image.png", "linked/a.png", "linked/deep/b.png", "sub/beside/a.png", "sub/beside/deep/b.png",
        "sub/d.png",
    ]  # fmt: skip
    found, others = find_images(new)
    assert [str(path.relative_to(new)) for path in found] == expected
    seen = {new / "linked" / "back", new / "linked" / "deep" / "self", new / "sub" / "beside" / "back"}
    seen |= {new / "sub" / "beside" / "deep" / "self"} | {place for place in circles if new in place.parents}
    assert {*others} == seen | {new / "loop"}
    ending, link = left_out(others, decode.IMAGES)
    assert ending.startswith("1 left out (the name ends in none of")
    assert link == f"{len(seen)} left out (a link back to a folder that it lies in): {new / 'again'} and others"
    (tmp_path / "given").symlink_to(new)
    assert len(find_images(tmp_path / "given")[0]) == len(expected)


def test_a_network_of_events_says_what_it_takes(tmp_path: Path) -> None:
    with pytest.raises(
        UsageError, match=r"takes these, \(T, 2, H, W\) = \(2, 2, 9, 8\), not images .* `spikeback test"
    ):
        read_images(tmp_path, (2, 2, 9, 8), MEAN, STD)
