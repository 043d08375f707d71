"""What is augmented where nothing is said: in proportion to the image, mirrored only where that keeps classes."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from spikeback.cli.options import packaged_recipe, read_recipe, studies
from spikeback.data import DataConfig, DataModule, Images, ImageSet
from spikeback.data.sets import folder
from spikeback.errors import UsageError
from spikeback.lab.paper.measured import protocol, protocol_of
from spikeback.train.results import check_resumable

from .batches import RecordingSet, epoch, made

DEFAULT = DataConfig(batch_size=8, held_out=0.2)
HINT = " (data.flip=True mirrors half of them, if their classes allow it)"


@pytest.fixture
def digits(draw_image: Callable[..., np.ndarray], tmp_path: Path) -> Path:
    """A folder that nobody knows: 10 images of 14 x 14 of each of two classes."""
    for name in [f"digits/{each}/{i}.png" for each in "25" for i in range(10)]:
        draw_image(name, size=(14, 14), mode="L")
    return tmp_path / "digits"


@pytest.mark.parametrize(
    ("side", "padding"), [((32, 32), 4), ((14, 14), 1), ((28, 28), 3), ((8, 8), 1), ((7, 7), 0), ((64, 20), 2)]
)
def test_images_are_shifted_by_an_eighth(side: tuple[int, int], padding: int) -> None:
    images = Images(torch.zeros(40, 1, *side, dtype=torch.uint8), torch.arange(40) % 2)
    module = made(ImageSet("x", "y", ("a", "b"), images, images), DEFAULT)
    assert module.augmentation.padding == padding
    assert module.describe()["options"]["crop_padding"] == padding
    words = f"shifted by up to {padding} of {min(side)} pixels" if padding else "not shifted"
    assert module.augmented == f"{words}, half of them mirrored"
    asked = made(ImageSet("x", "y", ("a", "b"), images, images), replace(DEFAULT, crop_padding=5))
    assert asked.augmentation.padding == 5


def of_folder(root: Path, **options: Any) -> DataModule:
    module = DataModule(DataConfig("folder", str(root), batch_size=1, **options), 0)
    module.setup()
    return module


def test_a_folder_is_not_mirrored_unless_that_is_asked_for(digits: Path) -> None:
    module = of_folder(digits, crop_padding=0)
    plain = {x.numpy().tobytes() for x in module.probe(99)[0]}
    assert {x[0].numpy().tobytes() for x, _ in epoch(module, 0)} == plain
    assert module.augmented == f"not shifted, not mirrored{HINT}"
    asked = of_folder(digits, flip=True)
    assert (asked.mirror, asked.augmented) == (-1, "shifted by up to 1 of 14 pixels, half of them mirrored")
    refused = of_folder(digits, flip=False, auto_augment=True, cutout=3, num_workers=0)
    assert refused.augmented == "shifted by up to 1 of 14 pixels, not mirrored, AutoAugment, Cutout of 3 pixels"


def test_cifar10_as_jpeg_is_known_to_allow_mirroring(draw_image: Callable[..., np.ndarray], tmp_path: Path) -> None:
    for name in [f"{half}/{each}/{i}.jpg" for half in ("train", "test") for each in folder.CIFAR10 for i in range(2)]:
        draw_image(name, size=(32, 32))
    module = of_folder(tmp_path)
    assert (module.mirror, module.augmentation.padding) == (-1, 4)


def test_frames_are_described_in_words(recording_set: RecordingSet) -> None:
    assert made(recording_set).augmented == "rolled by up to 2 of 5 pixels, half of them mirrored"
    assert made(replace(recording_set, mirror=None)).augmented == "rolled by up to 2 of 5 pixels, not mirrored"


def test_published_recipes_augment_as_before() -> None:
    for name in ("cifar10/resnet18-t2", "cifar100/resnet34-t4", "imagenet/resnet18-t4", "cifar10-jpeg/resnet18"):
        data = packaged_recipe(name).data
        assert (data.crop_padding, data.flip) == (4, True)
    for name in ("demo", "fashion-mnist/resnet18"):
        data = packaged_recipe(name).data
        assert (data.crop_padding, data.flip) == {"demo": (0, False)}.get(name, (2, None))


def test_the_study_of_depth_augments_as_before() -> None:
    assert read_recipe(studies()["depth"])["data"]["crop_padding"] == 4


def results(module: DataModule, config: Any) -> dict[str, Any]:
    return {"config": config, "dataset": module.describe(), "environment": {"precision": "32-true"}}


def test_tables_know_what_empty_options_came_to(digits: Path) -> None:
    recipe = packaged_recipe("demo")
    recipe.data = DataConfig("folder", str(digits), batch_size=1)
    options = protocol_of(results(of_folder(digits), recipe.as_dict()))
    assert (options["data.crop_padding"], options["data.flip"]) == (1, False)
    recipe.data = DataConfig("cifar10", "somewhere")
    assert (protocol(recipe.as_dict())["data.crop_padding"], protocol(recipe.as_dict())["data.flip"]) == (4, True)


def test_runs_of_earlier_versions_resume_if_they_augmented_alike(digits: Path) -> None:
    recipe = packaged_recipe("demo")
    recipe.data = DataConfig("folder", str(digits), batch_size=1, crop_padding=1, flip=True)
    module = of_folder(digits, crop_padding=1, flip=True)
    old = results(module, recipe.as_dict())
    old["dataset"] = {**old["dataset"], "options": {k: old["dataset"]["options"][k] for k in ("mean", "std")}}
    check_resumable(old, recipe, module.describe(), old["environment"], digits)
    recipe.data.flip = old["config"]["data"]["flip"] = None  # mirrored then, and is not now
    with pytest.raises(
        UsageError, match=r"digits was made with other augmentation, .*'mirror': -1}; name another out=..."
    ):
        check_resumable(old, recipe, of_folder(digits, crop_padding=1).describe(), old["environment"], digits)
