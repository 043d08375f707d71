"""ImageNet: its tree, decoded batch by batch, cropped as torchvision crops."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms import v2 as transforms
from torchvision.transforms.v2.functional import pil_to_tensor

from spikeback.data import DataConfig, DataModule, load
from spikeback.data.sets.imagenet import ImageFiles
from spikeback.errors import UsageError

WNIDS = ("n01440764", "n02009912", "n07768694")


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """3 classes of 4 + 2 JPEG files, colour but for one grey, each of its own size and shape."""
    rng = np.random.default_rng(0)
    for part, count in (("train", 4), ("val", 2)):
        for number, wnid in enumerate(WNIDS):
            folder = tmp_path / part / wnid
            folder.mkdir(parents=True)
            for i in range(count):
                height, width = 40 + 10 * i, 90 - 20 * i
                shape = (height, width) if (number, i) == (1, 1) else (height, width, 3)
                name = f"{wnid}_{i}.JPEG" if part == "train" else f"ILSVRC2012_val_{i:08d}.JPEG"
                Image.fromarray(rng.integers(0, 256, shape, dtype=np.uint8)).save(folder / name)
    return tmp_path


def files(root: Path, part: str) -> list[Path]:
    return sorted((root / part).glob("*/*"))


def image(path: Path) -> Tensor:
    with Image.open(path) as opened:
        return pil_to_tensor(opened.convert("RGB"))


def test_the_middle_is_torchvisions_resize_and_centre_crop(tree: Path) -> None:
    dataset = load("imagenet", tree)
    assert dataset.classes == WNIDS
    assert dataset.test.labels.tolist() == [0, 0, 1, 1, 2, 2]
    assert (dataset.name, dataset.train.shape) == ("ImageNet, a part", (3, 224, 224))
    view = transforms.Compose([transforms.Resize(256), transforms.CenterCrop(224)])
    expected = torch.stack([view(image(path)) for path in files(tree, "val")])
    assert torch.equal(dataset.test.read(torch.arange(6)), expected)
    assert torch.equal(dataset.test.read(torch.tensor([4, 1])), expected[[4, 1]])


def test_training_views_are_torchvisions_under_each_images_seed(tree: Path) -> None:
    split = load("imagenet", tree, 32).train
    assert isinstance(split, ImageFiles)
    before = torch.get_rng_state()
    views = split.read_random(torch.arange(12), range(12))
    assert torch.equal(torch.get_rng_state(), before)
    crop = transforms.RandomResizedCrop(32)
    for seed, (path, view) in enumerate(zip(files(tree, "train"), views, strict=True)):
        torch.manual_seed(seed)
        assert torch.equal(view, crop(image(path)))


def config(tree: Path, **options: Any) -> DataConfig:
    return replace(DataConfig("imagenet", str(tree), 16, batch_size=4, held_out=0.25, num_workers=0), **options)


def batches(module: DataModule, epoch: int) -> list[tuple[Tensor, Tensor]]:
    module.setup()
    loader: Any = module.train_dataloader()
    loader.sampler.set_epoch(epoch)
    return list(loader)


@pytest.mark.parametrize("workers", [1, 2])
def test_batches_are_the_same_for_any_number_of_workers(tree: Path, workers: int) -> None:
    alone, helped = (DataModule(config(tree, num_workers=n), 0) for n in (0, workers))
    for (x, y), (u, v) in zip(batches(alone, 2), batches(helped, 2), strict=True):
        assert torch.equal(x, u)
        assert torch.equal(y, v)
    assert not torch.equal(batches(alone, 2)[0][0], batches(alone, 3)[0][0])


def test_batches_are_normalised_by_the_published_statistics(tree: Path) -> None:
    module = DataModule(config(tree, crop_padding=0, flip=False), 0)
    module.setup()
    x, _ = module.probe(3)
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    plain = load("imagenet", tree, 16).train.read(module._train[[0, 3, 6]])
    assert torch.equal(x, (plain / 255 - mean[:, None, None]) / std[:, None, None])
    statistics = {"mean": mean.tolist(), "std": std.tolist()}
    assert module.describe()["options"] == statistics | {"crop_padding": 0, "mirror": None}
    seen = torch.cat([x for x, _ in batches(module, 0)])
    assert {each.numpy().tobytes() for each in seen} <= {each.numpy().tobytes() for each in module.probe(99)[0]}


def test_hash_sees_names_sizes_and_labels(tree: Path) -> None:
    hashes = {load("imagenet", tree).hash(), load("imagenet", tree, 32).hash()}
    assert load("imagenet", tree).hash() in hashes
    path = files(tree, "val")[0]
    path.rename(path.with_name("other.JPEG"))
    hashes.add(load("imagenet", tree).hash())
    with path.with_name("other.JPEG").open("ab") as file:
        file.write(b"\0")
    hashes.add(load("imagenet", tree).hash())
    path.with_name("other.JPEG").unlink()
    hashes.add(load("imagenet", tree).hash())
    assert len(hashes) == 5


@pytest.mark.parametrize("workers", [0, 2])
def test_a_broken_image_is_one_line_that_names_it(tree: Path, workers: int) -> None:
    path = files(tree, "val")[3]
    path.write_bytes(path.read_bytes()[:200])
    module = DataModule(config(tree, num_workers=workers), 0)
    module.setup()
    with pytest.raises(UsageError) as error:
        list(module.test_dataloader())
    assert str(error.value).startswith(f"{path} cannot be read as an image")
    assert "\n" not in str(error.value)


def flat(tree: Path) -> None:
    shutil.move(files(tree, "val")[0], tree / "val")


DAMAGE: dict[str, tuple[Callable[[Path], Any], str]] = {
    "no val": (lambda tree: shutil.rmtree(tree / "val"), r"val is not a folder; ImageNet needs train/<wnid>/\*\.JPEG"),
    "empty val": (lambda tree: (shutil.rmtree(tree / "val"), (tree / "val").mkdir()), "val is empty"),
    "flat val": (
        flat,
        r"ILSVRC2012_val_00000000\.JPEG does not belong here.*; sort its images into folders by class",
    ),
    "odd class": (lambda tree: (tree / "train" / "tench").mkdir(), "tench does not belong here"),
    "empty class": (lambda tree: (tree / "train" / "n99999999").mkdir(), "n99999999 is a class without images"),
    "one class fewer": (lambda tree: shutil.rmtree(tree / "val" / WNIDS[1]), f"{WNIDS[1]} is in only one of them"),
    "one class": (lambda tree: [shutil.rmtree(each) for each in tree.glob("*/n0[27]*")], "train holds one class, n014"),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_each_fault_of_the_tree_is_named(tree: Path, kind: str) -> None:
    damage, message = DAMAGE[kind]
    damage(tree)
    with pytest.raises(UsageError, match=message):
        load("imagenet", tree)


def test_a_folder_named_like_a_image_is_named_when_it_is_read(tree: Path) -> None:
    path = files(tree, "val")[0]
    path.unlink()
    path.mkdir()
    with pytest.raises(UsageError, match=rf"{path.name} cannot be read as an image"):
        load("imagenet", tree).test.read(torch.arange(1))


def test_real_images_are_read_as_torchvision_reads_them(real_data: Path, tmp_path: Path) -> None:
    sample = real_data / "imagenet-sample"
    if not sample.is_dir():
        pytest.skip(f"no real images at {sample}")
    for part in ("train", "val"):
        (tmp_path / part).symlink_to(sample)
    split = load("imagenet", tmp_path).test
    assert len(split) == 30
    view = transforms.Compose([transforms.Resize(256), transforms.CenterCrop(224)])
    for index, path in enumerate(files(tmp_path, "val")):
        assert torch.equal(split.read(torch.tensor([index]))[0], view(image(path)))
