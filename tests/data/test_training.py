"""A few training steps end to end on every kind of dataset, from files in its own layout."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from spikeback.data import DataConfig, DataModule, EventConfig
from spikeback.data.sets import cifar10_dvs as dvs
from spikeback.data.sets import nmnist as sets
from spikeback.data.sets.source import find
from spikeback.train import Method, ModelConfig, Recipe, TrainConfig, compare
from spikeback.train.trials import Run

from .cifar_files import write_cifar10, write_cifar100
from .nmnist_files import write

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore:fidelity 0.7 was asked for")]  # samples are noise

RNG = np.random.default_rng(0)


def train(tmp_path: Path, data: DataConfig, stem: Any = "cifar", time_steps: int = 2) -> dict[str, Any]:
    """One epoch of a narrow ResNet-20 (He); returns what results.json says."""
    model = ModelConfig("spiking_resnet20_he", stem, time_steps, width=4)
    recipe = Recipe("a few steps", data, model, train=TrainConfig(epochs=1, precision="32-true", probe=4))
    run = Run(recipe, tmp_path / "run")
    compare(run, [Method.from_text("evolutionary")], [0])
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    assert results["trials"][0]["steps"] >= 2
    assert np.isfinite(results["trials"][0]["history"]["train_loss"]).all()
    weights = torch.load(tmp_path / "run" / "evolutionary-seed0" / "last.ckpt", weights_only=True)["state_dict"]
    assert all(torch.isfinite(value).all() for value in weights.values())
    return results


def test_cifar10(tmp_path: Path) -> None:
    write_cifar10(tmp_path)
    data = DataConfig(
        "cifar10", str(tmp_path), 8, 16, held_out=0.2, auto_augment=True, cutout=4, num_workers=0, unchecked=True
    )
    dataset = train(tmp_path, data)["dataset"]
    assert (dataset["name"], dataset["shape"]) == ("CIFAR-10", [3, 8, 8])


def test_cifar100(tmp_path: Path) -> None:
    write_cifar100(tmp_path)
    data = DataConfig("cifar100", str(tmp_path), 8, 32, held_out=0.5, auto_augment=True, num_workers=1, unchecked=True)
    dataset = train(tmp_path, data)["dataset"]
    assert (dataset["name"], len(dataset["classes"])) == ("CIFAR-100", 100)


def imagenet_tree(root: Path, sample: Path) -> None:
    """The real images for training, two copies of each, and for validation."""
    for path in sample.glob("*/*.JPEG"):
        for part, copies in (("train", 2), ("val", 1)):
            (root / part / path.parent.name).mkdir(parents=True)
            for copy in range(copies):
                (root / part / path.parent.name / f"{copy}_{path.name}").symlink_to(path)


def test_imagenet_from_real_images(real_data: Path, tmp_path: Path) -> None:
    if not (real_data / "imagenet-sample").is_dir():
        pytest.skip(f"no real images at {real_data / 'imagenet-sample'}")
    imagenet_tree(tmp_path, real_data / "imagenet-sample")
    data = DataConfig("imagenet", str(tmp_path), 32, 10, held_out=0.5, num_workers=2)
    dataset = train(tmp_path, data, stem="imagenet")["dataset"]
    assert (dataset["train"], dataset["held_out"], dataset["test"]) == (30, 30, 30)
    assert dataset["name"] == "ImageNet, a part"


def aedat(path: Path, count: int) -> None:
    """AEDAT 2.0 as jAER wrote CIFAR10-DVS: big-endian pairs (address, microseconds)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    address, time = RNG.integers(0, 1 << 15, count), np.sort(RNG.integers(0, 1_300_000, count))
    header = b"#!AER-DAT2.0\r\n# This is a raw AE data file\r\n"
    path.write_bytes(header + np.stack([address, time], 1).astype(">u4").tobytes())


def nmnist_bin(path: Path, count: int) -> None:
    """Events at random, as the camera wrote them."""
    path.parent.mkdir(parents=True, exist_ok=True)
    columns = np.sort(RNG.integers(0, 300_000, count)), *RNG.integers(0, 34, (2, count)), RNG.integers(0, 2, count)
    write(path, [tuple(event) for event in np.stack(columns, 1).tolist()])


@pytest.mark.parametrize("split", [None, "random-0"])
def test_cifar10_dvs(split: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dvs, "PER_CLASS", 10)
    for name in dvs.CLASSES:
        for i in range(10):
            aedat(tmp_path / name / f"cifar10_{name}_{i}.aedat", 400)
    data = DataConfig("cifar10-dvs", str(tmp_path), 16, 20, held_out=0.2, split=split, events=EventConfig(time_steps=3))
    results = train(tmp_path, data, "dvs", time_steps=9)
    dataset = results["dataset"]
    assert (dataset["name"], dataset["shape"], dataset["test"]) == ("CIFAR10-DVS", [3, 2, 16, 16], 10)
    assert dataset["split"] == (split or "numeric-first-900")
    assert len(dataset["options"]["manifest"]) == 64
    assert (dataset["options"]["time_steps"], dataset["options"]["mirror"]) == (3, -2)


def test_nmnist(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sets, "NMNIST", {"Train": 60, "Test": 20})
    for half, count in sets.NMNIST.items():
        for i in range(count):
            nmnist_bin(tmp_path / half / str(i % 10) / f"{i + 1:05d}.bin", 200)
    data = DataConfig("nmnist", str(tmp_path), None, 16, held_out=0.2, events=EventConfig(time_steps=4, by="time"))
    dataset = train(tmp_path, data, "dvs")["dataset"]
    assert (dataset["name"], dataset["shape"]) == ("N-MNIST", [4, 2, 34, 34])
    assert dataset["options"]["mirror"] is None


def test_simulated_dvs_of_a_folder_of_images(tmp_path: Path, draw_image: Callable[..., np.ndarray]) -> None:
    for name in ("light", "dark"):
        for i in range(14):
            draw_image(f"images/{name}/{i}.png", size=(12, 12))
    events = EventConfig(time_steps=3, source="folder", sensor=16)
    data = DataConfig(
        "simulated-dvs", str(tmp_path / "images"), 8, 5, held_out=0.2, cache=str(tmp_path / "cache"), events=events
    )
    dataset = train(tmp_path, data, "dvs")["dataset"]
    assert (dataset["name"], dataset["shape"]) == ("simulated DVS of images", [3, 2, 8, 8])
    assert dataset["options"]["mirror"] is None  # nobody knows what a folder's images mean
    assert "not comparable with results on CIFAR10-DVS" in dataset["provenance"]


def test_dvs128_gesture(tmp_path: Path) -> None:
    for half, count in (("train", 5), ("test", 1)):
        for label in range(11):
            for i in range(count):
                path = tmp_path / half / str(label) / f"{i}.npz"
                path.parent.mkdir(parents=True, exist_ok=True)
                x, y, p = (RNG.integers(0, most, 300) for most in (128, 128, 2))
                np.savez(path, t=np.sort(RNG.integers(0, 10**6, 300)), x=x, y=y, p=p)
    data = DataConfig("dvs128-gesture", str(tmp_path), 16, 11, held_out=0.2, events=EventConfig(time_steps=2))
    dataset = train(tmp_path, data, "dvs")["dataset"]
    assert (dataset["shape"], dataset["train"], len(dataset["classes"])) == ([2, 2, 16, 16], 44, 11)


def test_a_grey_folder_with_everything_switched_on(tmp_path: Path) -> None:
    for name in "ab":
        (tmp_path / "set" / name).mkdir(parents=True)
        for i in range(20):
            Image.fromarray(RNG.integers(0, 256, (9, 9), dtype=np.uint8)).save(tmp_path / "set" / name / f"{i}.png")
    data = DataConfig(
        "folder", str(tmp_path / "set"), None, 8, held_out=0.2, auto_augment=True, cutout=3, num_workers=0
    )
    assert train(tmp_path, data)["dataset"]["shape"] == [1, 9, 9]


def batches(data: DataConfig) -> list[torch.Tensor]:
    """Of two epochs of training and of the test samples."""
    module = DataModule(data, seed=3)
    module.setup()
    loader: Any = module.train_dataloader()
    seen = []
    for epoch in (0, 4):
        loader.sampler.set_epoch(epoch)
        seen += [part for batch in loader for part in batch]
    return seen + [part for batch in module.test_dataloader() for part in batch]


@pytest.mark.parametrize("name", ["cifar10", "cifar100", "nmnist", "simulated-dvs"])
def test_batches_are_the_same_for_any_number_of_workers(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, draw_image: Callable[..., np.ndarray]
) -> None:
    monkeypatch.setattr(sets, "NMNIST", {"Train": 40, "Test": 20})
    if name == "nmnist":
        for half, count in sets.NMNIST.items():
            for i in range(count):
                nmnist_bin(tmp_path / "set" / half / str(i % 10) / f"{i + 1:05d}.bin", 100)
    elif name == "simulated-dvs":
        for i in range(24):
            draw_image(f"set/{i % 2}/{i}.png")
    else:
        {"cifar10": write_cifar10, "cifar100": write_cifar100}[name](tmp_path / "set")
    augmented: Any = {"auto_augment": True, "cutout": 4} if not find(name).frames else {}
    data = DataConfig(
        name, str(tmp_path / "set"), 16, 8, **augmented, unchecked=True, num_workers=0,
        events=EventConfig(time_steps=2, source="folder", sensor=16),
    )  # fmt: skip
    alone = batches(data)
    for workers in (1, 2):
        helped = batches(replace(data, num_workers=workers))
        assert all(torch.equal(*pair) for pair in zip(alone, helped, strict=True))
