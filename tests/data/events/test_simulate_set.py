"""A whole set of images through the simulated camera: frames, cache, names."""

import os
import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from spikeback.data import DataConfig, DataModule, EventConfig
from spikeback.data.events.decode import FrameOptions
from spikeback.data.events.frame_set import FrameSet
from spikeback.data.events.frames import to_frames
from spikeback.data.events.pixel import PixelModel
from spikeback.data.events.simulate import MotionPath, simulate
from spikeback.data.images import Images, ImageSet
from spikeback.data.sets import simulated_dvs as module
from spikeback.data.sets.embedded import Embedded
from spikeback.data.sets.imagenet import load_imagenet
from spikeback.data.sets.simulated_dvs import simulated_dvs
from spikeback.errors import UsageError

PATH = MotionPath(steps=16)


def images(count: int = 5) -> ImageSet:
    rng = torch.Generator().manual_seed(1)

    def part(n: int) -> Images:
        images = torch.randint(0, 256, (n, 3, 6, 5), dtype=torch.uint8, generator=rng)
        return Images(images, torch.arange(n) % 2)

    return ImageSet("tiny", "made up", ("a", "b"), part(count), part(3))


@pytest.fixture
def options(tmp_path: Path) -> FrameOptions:
    return FrameOptions(time_steps=4, size=12, cache=tmp_path / "cache", workers=1)


def everything(frames: FrameSet) -> Tensor:
    return torch.cat([part.read(torch.arange(len(part))) for part in (frames.train, frames.test)])


@pytest.mark.parametrize("preset", ["clean", "noisy", PixelModel(threshold=0.5)])
def test_each_sample_is_the_frames_of_its_images_recording(options: FrameOptions, preset: str | PixelModel) -> None:
    source = images()
    frames = simulated_dvs(source, options, preset, PATH, seed=2, sensor=24)
    assert frames.train.shape == frames.test.shape == (4, 2, 12, 12)
    assert torch.equal(frames.train.labels, source.train.labels)
    assert torch.equal(frames.test.labels, source.test.labels)
    filmed = torch.cat([source.train.images, source.test.images])
    for number, (image, found) in enumerate(zip(filmed, everything(frames), strict=True)):
        events = simulate(image, preset, PATH, seed=2, sensor=24, recording=number)
        assert torch.equal(found, to_frames(events, 4, (24, 24), 12).clamp(max=255).byte())


def test_a_second_call_opens_the_cache(options: FrameOptions, monkeypatch: pytest.MonkeyPatch) -> None:
    first = simulated_dvs(images(), options, path=PATH, sensor=16)
    monkeypatch.setattr(module, "simulate", None)  # would fail if it was called
    second = simulated_dvs(images(), options, path=PATH, sensor=16)
    assert first.hash() == second.hash()
    assert len(list((options.cache or Path()).glob("*.npy"))) == 1


def test_whatever_decides_the_frames_has_its_own_entry(options: FrameOptions) -> None:
    changes = [
        {},
        {"preset": "noisy"},
        {"path": replace(PATH, loops=2)},
        {"seed": 1},
        {"sensor": 17},
        {"options": replace(options, time_steps=5)},
        {"images": images(6)},
    ]
    for count, change in enumerate(changes, 1):
        simulated_dvs(**{"images": images(), "options": options, "path": PATH, "sensor": 16} | change)
        assert len(list((options.cache or Path()).iterdir())) == count


def test_images_on_disk_of_other_content_have_their_own_entry(options: FrameOptions, tmp_path: Path) -> None:
    def frames(bright: int) -> Tensor:
        pixels = np.full((8, 8, 3), bright, np.uint8)
        pixels[:4] = 20
        for folder in [f"{part}/{wnid}" for part in ("train", "val") for wnid in ("n01440764", "n01443537")]:
            file = tmp_path / folder / "1.bmp"  # as many bytes, whatever the pixels
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(file)
            os.utime(file, (bright, bright))
        source = load_imagenet(tmp_path, 8)
        return everything(simulated_dvs(source, options, path=PATH, sensor=16))

    assert not torch.equal(frames(250), frames(60))
    assert len(list((options.cache or Path()).iterdir())) == 2


def test_several_processes_make_the_same_frames(options: FrameOptions, tmp_path: Path) -> None:
    one, two = (
        simulated_dvs(images(70), replace(options, cache=tmp_path / str(n), workers=n), "noisy", PATH, sensor=8)
        for n in (1, 2)
    )
    assert torch.equal(everything(one), everything(two))


def count_films(monkeypatch: pytest.MonkeyPatch, stop_before: int | None = None) -> list[int]:
    """The numbers of the images that are filmed; Ctrl-C comes before one."""
    filmed = []

    def counting(*args: Any, recording: int, **kwargs: Any) -> np.ndarray:
        if recording == stop_before:
            raise KeyboardInterrupt
        filmed.append(recording)
        return simulate(*args, recording=recording, **kwargs)

    monkeypatch.setattr(module, "simulate", counting)
    return filmed


def test_an_interrupted_film_goes_on_where_it_stopped(options: FrameOptions, monkeypatch: pytest.MonkeyPatch) -> None:
    uninterrupted = simulated_dvs(
        images(70), replace(options, cache=options.cache and options.cache / "other"), "noisy", PATH, sensor=8
    )
    before = count_films(monkeypatch, stop_before=40)
    with pytest.raises(KeyboardInterrupt):
        simulated_dvs(images(70), options, "noisy", PATH, sensor=8)
    assert before == [*range(40)]
    after = count_films(monkeypatch)
    again = simulated_dvs(images(70), options, "noisy", PATH, sensor=8)
    assert after == [*range(32, 73)]  # sixteen are handed over at a time
    assert again.hash() == uninterrupted.hash()
    assert torch.equal(everything(again), everything(uninterrupted))


def test_only_what_is_needed_is_filmed(options: FrameOptions, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = simulated_dvs(
        images(), replace(options, cache=options.cache and options.cache / "other"), path=PATH, sensor=16
    )
    filmed = count_films(monkeypatch)
    few = simulated_dvs(images(), options, path=PATH, sensor=16, only=torch.tensor([3, 1]))
    assert filmed == [1, 3, 5, 6, 7]  # and the test images
    assert torch.equal(few.train.labels, whole.train.labels)
    for part in ("train", "test"):
        at = torch.tensor([1, 3]) if part == "train" else torch.arange(3)
        assert torch.equal(getattr(few, part).read(at), getattr(whole, part).read(at))
    with pytest.raises(UsageError, match="sample 2 was left out"):
        few.train.read(torch.tensor([1, 2]))
    assert few.hash() != whole.hash()
    assert simulated_dvs(images(), options, path=PATH, sensor=16).hash() == whole.hash()
    assert filmed == [1, 3, 5, 6, 7, 0, 2, 4]
    assert simulated_dvs(images(), options, path=PATH, sensor=16, only=torch.tensor([1, 3])).hash() == few.hash()


def test_a_training_with_a_limit_films_what_it_reads(
    options: FrameOptions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Embedded, "open", lambda *args: images(40))
    filmed = count_films(monkeypatch)
    events = EventConfig(time_steps=2, sensor=8)
    config = DataConfig(
        "simulated-dvs", size=8, batch_size=4, limit=8, held_out=0.1, cache=str(tmp_path / "c"), events=events
    )
    data = DataModule(config, seed=0)
    data.setup()
    assert len(filmed) == 8 + 4 + 3
    loader: Any = data.train_dataloader()
    assert sum(len(y) for x, y in [*loader, *data.val_dataloader(), *data.test_dataloader()]) == 8 + 4 + 3
    data.probe(8)
    data.judged(4)
    with pytest.raises(UsageError, match="give at most 8"):  # and nothing is filmed for it
        DataModule(replace(config, batch_size=9, size=9), seed=0).setup()
    assert len(filmed) == 8 + 4 + 3
    unlimited = DataModule(replace(config, limit=None), seed=0)
    unlimited.setup()
    assert len(filmed) == 43
    assert unlimited.split_hash == data.split_hash


def test_a_pickled_split_holds_its_own_samples(options: FrameOptions) -> None:
    frames = simulated_dvs(images(), options, path=PATH, sensor=16)
    for part in (frames.train, frames.test):
        again, all_of_it = pickle.loads(pickle.dumps(part)), torch.arange(len(part))
        assert torch.equal(again.read(all_of_it), part.read(all_of_it))


def test_its_name_says_that_it_is_simulated(options: FrameOptions) -> None:
    frames = simulated_dvs(images(), options, "noisy", PATH, seed=7, sensor=16)
    assert frames.name == "simulated DVS of tiny"
    assert frames.classes == ("a", "b")
    assert frames.sensor == (16, 16)
    for part in ("made up", "noisy", "steps=16", "seed 7", "not comparable with results on CIFAR10-DVS"):
        assert part in frames.provenance


def test_the_default_is_the_papers_ten_frames_of_48(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    frames = simulated_dvs(images(1))
    assert frames.train.shape == (10, 2, 48, 48)
    assert frames.sensor == (128, 128)
    assert list(tmp_path.rglob("simulated-dvs-*.npy"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"preset": "foggy"}, "choose from clean, noisy"),
        ({"sensor": 0}, "sensor must be 1 to 1024"),
        ({"seed": -1}, "seed and recording must be at least 0"),
    ],
)
def test_a_mistake_leaves_nothing_behind(options: FrameOptions, change: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        simulated_dvs(images(), options, **{"path": PATH, "sensor": 16} | change)  # type: ignore[arg-type]
    assert not options.cache or not options.cache.exists() or not list(options.cache.iterdir())
