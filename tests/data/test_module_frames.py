"""The data module with frames of events, and augmentation along the axis that keeps a label."""

from dataclasses import replace
from typing import Any

import pytest
import torch

from spikeback.data import DataConfig, EventConfig, ImageSet
from spikeback.errors import UsageError

from .batches import SMALL, RecordingSet, epoch, made, same


def test_batches_of_frames_are_counts_time_first(recording_set: RecordingSet) -> None:
    module = made(recording_set)
    assert (module.shape, module.channels, module.time_steps) == ((3, 2, 6, 5), 2, 3)
    for x, y in [*epoch(module, 0), *module.val_dataloader(), *module.test_dataloader()]:
        assert (x.shape[0], x.shape[2:], x.dtype) == (3, (2, 6, 5), torch.float32)
        assert x.shape[1] == len(y)
    x, y = next(iter(module.test_dataloader()))
    assert torch.equal(x.transpose(0, 1), recording_set.test.frames.float())
    assert torch.equal(module.probe(4)[0].transpose(0, 1), recording_set.train.frames[module._train[:4]].float())


def test_frames_are_described_with_their_split_and_options(recording_set: RecordingSet) -> None:
    described = made(recording_set).describe()
    assert (described["split"], described["shape"]) == ("by hand", [3, 2, 6, 5])
    assert described["options"] == {"mean": None, "std": None, "manifest": "abc", "mirror": -1, "roll": 2}


@pytest.mark.parametrize(
    ("name", "more"),
    [
        ("cifar10-dvs", ["axes", "policy"]),
        ("nmnist", ["policy"]),
        ("dvs128-gesture", ["policy"]),
        ("simulated-dvs", ["preset", "seed", "sensor", "source"]),
        ("recordings", ["axes", "policy", "sensor"]),
        ("tonic:SHD", ["policy"]),
    ],
)
def test_only_options_that_have_an_effect_are_described(
    recording_set: RecordingSet, name: str, more: list[str]
) -> None:
    options = made(recording_set, replace(SMALL, name=name)).describe()["options"]
    always = ["by", "manifest", "mean", "mirror", "mode", "resize", "roll", "std", "time_steps"]
    assert sorted(options) == sorted(always + more)


@pytest.mark.parametrize("mirror", [-1, -2, None])
def test_frames_are_mirrored_along_the_axis_that_keeps_their_labels(
    recording_set: RecordingSet, mirror: int | None
) -> None:
    def trained_on(flip: bool | None) -> set[bytes]:
        config = replace(SMALL, flip=flip, batch_size=1, events=EventConfig(roll=0))
        return {x.numpy().tobytes() for x, _ in epoch(made(replace(recording_set, mirror=mirror), config), 0)}

    plain, seen = trained_on(False), trained_on(None)
    still = replace(SMALL, flip=False, batch_size=1, events=EventConfig(roll=0))
    mirrored = {x.flip(mirror).numpy().tobytes() for x, _ in epoch(made(recording_set, still), 0) if mirror is not None}
    assert seen <= plain | mirrored
    assert (0 < len(seen & mirrored) < len(seen)) if mirror else seen == plain
    if mirror:
        assert trained_on(True) == seen


def test_mirroring_what_loses_its_label_is_an_error(recording_set: RecordingSet, image_set: ImageSet) -> None:
    for dataset, name in ((recording_set, "tiny frames"), (image_set, "tiny")):
        unsafe, asked = replace(dataset, mirror=None), replace(SMALL, flip=True)
        with pytest.raises(UsageError, match=rf"^data\.flip=True is wrong for {name}: a mirrored sample may be of an"):
            made(unsafe, asked)
        assert made(unsafe).mirror is None
        assert made(replace(dataset, mirror=-1)).mirror == -1
        assert made(replace(dataset, mirror=-1), replace(SMALL, flip=False)).mirror is None


def test_a_image_is_mirrored_along_the_axis_of_its_set(image_set: ImageSet) -> None:
    config = replace(SMALL, crop_padding=0, batch_size=1)
    plain = epoch(made(image_set, replace(config, flip=False)), 0)
    seen = epoch(made(replace(image_set, mirror=-2), config), 0)
    same = [torch.equal(x, u) for (x, _), (u, _) in zip(seen, plain, strict=True)]
    assert 0 < sum(same) < len(same)
    assert all(s or torch.equal(x, u.flip(-2)) for s, (x, _), (u, _) in zip(same, seen, plain, strict=True))


@pytest.mark.parametrize(
    ("config", "frames", "message"),
    [
        (
            {"crop_padding": 6},
            False,
            "data.crop_padding=6 is too much for images of 5 pixels a side; give at most 5",
        ),
        ({"cutout": 6}, False, "data.cutout=6 is too much for images of 5 pixels a side; give at most 5"),
        (
            {"events": EventConfig(roll=5)},
            True,
            "data.events.roll=5 is too much for frames of 5 pixels a side; give at most 4",
        ),
        ({"cutout": 3}, True, "data.cutout=3 has no use with frames of events; it is for images"),
        ({"auto_augment": True}, True, "data.auto_augment=True has no use with frames of events; it is for images"),
    ],
)
def test_augmentation_beyond_the_samples_is_an_error(
    recording_set: RecordingSet, image_set: ImageSet, config: dict[str, Any], frames: bool, message: str
) -> None:
    with pytest.raises(UsageError) as error:
        made(recording_set if frames else image_set, replace(SMALL, **config))
    assert str(error.value) == message


def test_augmentation_up_to_the_side_works(recording_set: RecordingSet, image_set: ImageSet) -> None:
    assert epoch(made(image_set, replace(SMALL, crop_padding=5, cutout=5)), 0)
    assert epoch(made(recording_set, replace(SMALL, events=EventConfig(roll=4))), 0)


@pytest.mark.parametrize("name", ["cifar10-dvs", "simulated-dvs", "tonic:SHD"])
@pytest.mark.parametrize(("option", "value"), [("cutout", 16), ("auto_augment", True)])
def test_options_for_images_are_refused_before_recordings_are_read(name: str, option: str, value: Any) -> None:
    with pytest.raises(UsageError, match=rf"^data\.{option}={value} has no use with frames of events"):
        DataConfig(name, **{option: value})


@pytest.mark.parametrize("workers", [1, 2])
def test_frames_are_the_same_for_any_number_of_workers(recording_set: RecordingSet, workers: int) -> None:
    alone, helped = made(recording_set), made(recording_set, replace(SMALL, num_workers=workers))
    one, other = alone.train_dataloader(), helped.train_dataloader()
    assert all(same(epoch(alone, number, one), epoch(helped, number, other)) for number in (0, 3))


def test_frames_are_rolled_by_at_most_the_option(recording_set: RecordingSet) -> None:
    still = replace(SMALL, flip=False, batch_size=1, events=EventConfig(roll=0))
    plain = {x.numpy().tobytes() for x, _ in epoch(made(recording_set, still), 0)}
    rolled = {x.numpy().tobytes() for x, _ in epoch(made(recording_set, replace(still, events=EventConfig(roll=1))), 0)}
    near = {
        x.roll((down, right), (-2, -1)).numpy().tobytes()
        for x, _ in epoch(made(recording_set, still), 0)
        for down in (-1, 0, 1)
        for right in (-1, 0, 1)
    }
    assert plain < near
    assert rolled <= near
    assert not rolled <= plain
