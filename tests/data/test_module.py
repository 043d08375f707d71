import random
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import lightning
import numpy as np
import pytest
import torch
from torch import Tensor

from spikeback.data import DataConfig, DataModule, EventConfig, Pictures, PictureSet, hold_out, split_hash
from spikeback.errors import UsageError

SMALL = DataConfig(batch_size=8, held_out=0.2, crop_padding=1, events=EventConfig(roll=2))


def made(picture_set: Any, config: DataConfig = SMALL, seed: int = 0, use_all: bool = False) -> DataModule:
    module = DataModule(config, seed, picture_set, use_all)
    module.setup()
    return module


def epoch(module: DataModule, number: int, loader: Any = None) -> list[tuple[Tensor, Tensor]]:
    loader = loader or module.train_dataloader()
    loader.sampler.set_epoch(number)
    return list(loader)


def same(one: list[tuple[Tensor, Tensor]], other: list[tuple[Tensor, Tensor]]) -> bool:
    pairs = zip(one, other, strict=True)
    return all(torch.equal(x, u) and torch.equal(y, v) for (x, y), (u, v) in pairs)


def test_batches_have_the_stated_shapes(picture_set: PictureSet) -> None:
    module = made(picture_set)
    batches = epoch(module, 0)
    assert len(batches) == 10  # 80 pictures of 100 are left, in eights
    for x, y in batches:
        assert (x.shape, x.dtype) == ((8, 2, 6, 5), torch.float32)
        assert (y.shape, y.dtype) == ((8,), torch.int64)


def test_training_drops_the_incomplete_batch_and_evaluation_none(picture_set: PictureSet) -> None:
    module = made(picture_set, replace(SMALL, batch_size=9))
    assert [len(y) for _, y in epoch(module, 0)] == [9] * 8
    assert [len(y) for _, y in module.val_dataloader()] == [18, 2]
    assert [len(y) for _, y in module.test_dataloader()] == [13]


def test_attributes_describe_the_split(picture_set: PictureSet) -> None:
    module = made(picture_set)
    _, held_out = hold_out(picture_set.train.labels, 0.2, 0)
    assert module.classes == ("a", "b", "c")
    assert module.shape == (2, 6, 5)
    assert module.sizes == {"train": 80, "held_out": 20, "test": 13}
    assert module.hash == picture_set.hash()
    assert module.split_hash == split_hash(held_out)
    assert module.describe() == {
        "name": "tiny",
        "provenance": "made up",
        "shape": [2, 6, 5],
        "classes": ["a", "b", "c"],
        "train": 80,
        "held_out": 20,
        "test": 13,
        "hash": picture_set.hash(),
        "split_hash": split_hash(held_out),
        "split": None,
        "options": {"mean": module.mean.tolist(), "std": module.std.tolist()},
    }


def test_statistics_are_those_of_the_training_part_alone(picture_set: PictureSet) -> None:
    train, held_out = hold_out(picture_set.train.labels, 0.2, 0)
    images = picture_set.train.images.clone()
    images[held_out] = 0  # other held-out pictures
    other = replace(picture_set, train=Pictures(images, picture_set.train.labels))
    module, changed = made(picture_set), made(other)
    assert torch.equal(module.mean, changed.mean)
    assert torch.equal(module.std, changed.std)
    torch.testing.assert_close(module.mean.double(), (images[train].double() / 255).mean((0, 2, 3)), rtol=1e-7, atol=0)


def test_held_out_pictures_are_never_trained_on(picture_set: PictureSet) -> None:
    module = made(picture_set, replace(SMALL, crop_padding=0, flip=False, batch_size=1))
    seen = {x.numpy().tobytes() for x, _ in epoch(module, 0)}
    held_out = {x[None].numpy().tobytes() for batch, _ in module.val_dataloader() for x in batch}
    assert (len(seen), len(held_out)) == (80, 20)
    assert not seen & held_out


@pytest.mark.parametrize("workers", [1, 2])
def test_batches_are_the_same_for_any_number_of_workers(picture_set: PictureSet, workers: int) -> None:
    alone, helped = made(picture_set), made(picture_set, replace(SMALL, num_workers=workers))
    one, other = alone.train_dataloader(), helped.train_dataloader()
    for number in (0, 1, 5):
        assert same(epoch(alone, number, one), epoch(helped, number, other))
    assert same(list(alone.val_dataloader()), list(helped.val_dataloader()))


def test_an_epoch_is_the_same_whatever_came_before(picture_set: PictureSet) -> None:
    module, loader = made(picture_set), made(picture_set).train_dataloader()
    run = [epoch(module, number, loader) for number in range(4)]
    assert same(epoch(module, 3), run[3])
    assert not same(run[2], run[3])


def test_the_seed_changes_order_and_augmentation_but_not_the_split(picture_set: PictureSet) -> None:
    one, other = made(picture_set, seed=0), made(picture_set, seed=1)
    assert not same(epoch(one, 0), epoch(other, 0))
    assert one.split_hash == other.split_hash
    assert one.split_hash != made(picture_set, replace(SMALL, split_seed=1)).split_hash


def test_global_random_state_is_neither_used_nor_changed(picture_set: PictureSet) -> None:
    def everything() -> list[tuple[Tensor, Tensor]]:
        module = made(picture_set)
        return [*epoch(module, 1), *module.val_dataloader(), *module.test_dataloader(), module.probe(5)]

    torch.manual_seed(0)
    before = torch.get_rng_state(), random.getstate(), repr(np.random.get_state())  # noqa: NPY002
    batches = everything()
    assert torch.equal(torch.get_rng_state(), before[0])
    assert random.getstate() == before[1]
    assert repr(np.random.get_state()) == before[2]  # noqa: NPY002
    torch.manual_seed(1)
    assert same(everything(), batches)


def test_probe_is_balanced_fixed_and_not_augmented(picture_set: PictureSet) -> None:
    module = made(picture_set)
    x, y = module.probe(9)
    assert y.tolist() == [0, 1, 2] * 3
    assert x.shape == (9, 2, 6, 5)
    assert same([module.probe(9)], [made(picture_set, seed=7).probe(9)])
    assert torch.equal(module.probe(4)[0], x[:4])
    plain = made(picture_set, replace(SMALL, crop_padding=0, flip=False, batch_size=1))
    assert {each[None].numpy().tobytes() for each in x} <= {each.numpy().tobytes() for each, _ in epoch(plain, 0)}


def test_use_all_holds_nothing_out_and_validates_on_the_test_pictures(picture_set: PictureSet) -> None:
    module = made(picture_set, use_all=True)
    assert module.sizes == {"train": 100, "held_out": 0, "test": 13}
    assert same(list(module.val_dataloader()), list(module.test_dataloader()))


def test_limit_keeps_the_first_of_every_class(picture_set: PictureSet) -> None:
    module = made(picture_set, replace(SMALL, limit=15))
    assert module.sizes == {"train": 15, "held_out": 20, "test": 13}
    assert module.probe(99)[1].bincount().tolist() == [5, 5, 5]
    assert made(picture_set, replace(SMALL, limit=1000)).sizes["train"] == 80


def test_setup_reads_the_pictures_once(monkeypatch: pytest.MonkeyPatch, picture_set: PictureSet) -> None:
    calls = []
    monkeypatch.setattr("spikeback.data.module.load", lambda *asked, **_: calls.append(asked) or picture_set)
    module = DataModule(replace(SMALL, name="folder", root="here", size=5), 0)
    for stage in ("fit", "test", None):
        module.setup(stage)
    assert calls == [("folder", "here", 5)]


class Recorder(lightning.LightningModule):
    """Trains nothing much and remembers every batch."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.seen: dict[int, list[tuple[Tensor, Tensor]]] = {}

    def training_step(self, batch: tuple[Tensor, Tensor]) -> Tensor:
        self.seen.setdefault(self.current_epoch, []).append(batch)
        return batch[0].mean() * self.weight

    def validation_step(self, batch: tuple[Tensor, Tensor]) -> None:
        assert not torch.is_grad_enabled()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), 0.1)


@pytest.mark.filterwarnings("ignore:.*does not have many workers")
@pytest.mark.filterwarnings("ignore:.*LeafSpec:FutureWarning")  # Lightning's own use of PyTorch
def test_lightning_resumes_with_the_batches_of_the_uninterrupted_run(picture_set: PictureSet, tmp_path: Path) -> None:
    def train(epochs: int, checkpoint: str | None = None) -> tuple[lightning.Trainer, Recorder]:
        quiet: dict[str, Any] = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
        trainer = lightning.Trainer(
            accelerator="cpu", max_epochs=epochs, default_root_dir=tmp_path, enable_checkpointing=False, **quiet
        )
        recorder = Recorder()
        trainer.fit(recorder, datamodule=DataModule(SMALL, 0, picture_set), ckpt_path=checkpoint)
        return trainer, recorder

    whole = train(3)[1].seen
    assert not same(whole[0], whole[1])
    assert same(whole[2], epoch(made(picture_set), 2))
    trainer, first = train(1)
    trainer.save_checkpoint(tmp_path / "first.ckpt")
    rest = train(3, str(tmp_path / "first.ckpt"))[1].seen
    assert rest.keys() == {1, 2}
    assert all(same((first.seen | rest)[number], whole[number]) for number in range(3))


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        (
            "name",
            "cifar",
            "--data.name 'cifar' is unknown; choose from embedded, fashion-mnist, folder, cifar10, cifar100, "
            "imagenet, cifar10-dvs, nmnist, dvs128-gesture, simulated-dvs, tonic:<Name>",
        ),
        ("size", 0, "--data.size must be at least 1, not 0"),
        ("size", 100000, "--data.size must be at most 4096, not 100000"),
        ("batch_size", 0, "--data.batch_size must be at least 1, not 0"),
        ("split_seed", -1, "--data.split_seed must be at least 0, not -1"),
        ("cutout", -1, "--data.cutout must be at least 0, not -1"),
        ("events", {"time_steps": 0}, "--data.events.time_steps must be at least 1, not 0"),
        ("events", {"roll": -1}, "--data.events.roll must be at least 0, not -1"),
        ("crop_padding", -1, "--data.crop_padding must be at least 0, not -1"),
        ("num_workers", -2, "--data.num_workers must be at least 0, not -2"),
        ("limit", 0, "--data.limit must be at least 1, not 0"),
        ("held_out", 1.0, "--data.held_out must be a fraction, 0 <= held_out < 1, not 1.0"),
        ("held_out", float("nan"), "--data.held_out must be a fraction, 0 <= held_out < 1, not nan"),
    ],
)
def test_each_wrong_option_is_named_as_typed(option: str, value: Any, message: str) -> None:
    with pytest.raises(UsageError) as error:
        DataConfig(**{option: value})
    assert str(error.value) == message


@dataclass(frozen=True)
class Recordings:
    """One split of frames in memory."""

    frames: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.frames.shape[1:])

    def read(self, indices: Tensor) -> Tensor:
        return self.frames[indices]


@dataclass(frozen=True)
class RecordingSet:
    train: Recordings
    test: Recordings
    name: str = "tiny frames"
    provenance: str = "made up"
    classes: tuple[str, ...] = ("a", "b")
    split: str = "by hand"
    manifest: str = "abc"
    mirror: int | None = -1

    def hash(self) -> str:
        return "123"


@pytest.fixture
def recording_set() -> RecordingSet:
    """40 + 10 recordings of 3 frames, 2 x 6 x 5."""
    rng = torch.Generator().manual_seed(2)
    parts = (torch.randint(0, 256, (n, 3, 2, 6, 5), dtype=torch.uint8, generator=rng) for n in (40, 10))
    train, test = (Recordings(frames, torch.arange(len(frames)) % 2) for frames in parts)
    return RecordingSet(train, test)


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
        ("tonic:SHD", []),
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


def test_mirroring_what_loses_its_label_is_an_error(recording_set: RecordingSet, picture_set: PictureSet) -> None:
    for dataset, name in ((recording_set, "tiny frames"), (picture_set, "tiny")):
        unsafe, asked = replace(dataset, mirror=None), replace(SMALL, flip=True)
        with pytest.raises(
            UsageError, match=rf"^--data\.flip true is wrong for {name}: a mirrored sample may be of an"
        ):
            made(unsafe, asked)
        assert made(unsafe).mirror is None
        assert made(replace(dataset, mirror=-1)).mirror == -1
        assert made(replace(dataset, mirror=-1), replace(SMALL, flip=False)).mirror is None


def test_a_picture_is_mirrored_along_the_axis_of_its_set(picture_set: PictureSet) -> None:
    config = replace(SMALL, crop_padding=0, batch_size=1)
    plain = epoch(made(picture_set, replace(config, flip=False)), 0)
    seen = epoch(made(replace(picture_set, mirror=-2), config), 0)
    same = [torch.equal(x, u) for (x, _), (u, _) in zip(seen, plain, strict=True)]
    assert 0 < sum(same) < len(same)
    assert all(s or torch.equal(x, u.flip(-2)) for s, (x, _), (u, _) in zip(same, seen, plain, strict=True))


@pytest.mark.parametrize(
    ("config", "frames", "message"),
    [
        (
            {"crop_padding": 6},
            False,
            "--data.crop_padding 6 is too much for pictures of 5 pixels a side; give at most 5",
        ),
        ({"cutout": 6}, False, "--data.cutout 6 is too much for pictures of 5 pixels a side; give at most 5"),
        (
            {"events": EventConfig(roll=5)},
            True,
            "--data.events.roll 5 is too much for frames of 5 pixels a side; give at most 4",
        ),
        ({"cutout": 3}, True, "--data.cutout 3 has no use with frames of events; it is for pictures"),
        ({"auto_augment": True}, True, "--data.auto_augment true has no use with frames of events; it is for pictures"),
    ],
)
def test_augmentation_beyond_the_samples_is_an_error(
    recording_set: RecordingSet, picture_set: PictureSet, config: dict[str, Any], frames: bool, message: str
) -> None:
    with pytest.raises(UsageError) as error:
        made(recording_set if frames else picture_set, replace(SMALL, **config))
    assert str(error.value) == message


def test_augmentation_up_to_the_side_works(recording_set: RecordingSet, picture_set: PictureSet) -> None:
    assert epoch(made(picture_set, replace(SMALL, crop_padding=5, cutout=5)), 0)
    assert epoch(made(recording_set, replace(SMALL, events=EventConfig(roll=4))), 0)


@pytest.mark.parametrize("name", ["cifar10-dvs", "simulated-dvs", "tonic:SHD"])
@pytest.mark.parametrize(("option", "value"), [("cutout", 16), ("auto_augment", True)])
def test_options_for_pictures_are_refused_before_recordings_are_read(name: str, option: str, value: Any) -> None:
    with pytest.raises(UsageError, match=rf"^--data\.{option} {str(value).lower()} has no use with frames of events"):
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


def test_what_is_judged_is_what_the_loader_serves(picture_set: PictureSet, recording_set: RecordingSet) -> None:
    for dataset in (picture_set, recording_set):
        for use_all in (False, True):
            module = made(dataset, use_all=use_all)
            dim = 1 if module.time_steps else 0
            served = torch.cat([x for x, _ in module.val_dataloader()], dim)
            assert torch.equal(module.judged(7)[0], served.narrow(dim, 0, 7))
            assert torch.equal(module.judged(999)[0], served)


def test_published_statistics_are_used_as_they_are(picture_set: PictureSet) -> None:
    module = made(replace(picture_set, statistics=((0.5, 0.25), (0.125, 2.0))))
    assert module.mean.tolist() == [0.5, 0.25]
    assert module.describe()["options"] == {"mean": [0.5, 0.25], "std": [0.125, 2.0]}


def test_workers_are_started_where_samples_need_much_work(
    picture_set: PictureSet, recording_set: RecordingSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda process: set(range(6)))
    slow = replace(SMALL, auto_augment=True)
    cases = (picture_set, SMALL), (picture_set, slow), (recording_set, SMALL)
    assert [made(dataset, config).train_dataloader().num_workers for dataset, config in cases] == [0, 5, 0]
    assert made(picture_set, slow).test_dataloader().num_workers == 0
    assert made(picture_set, replace(slow, num_workers=2)).test_dataloader().num_workers == 2


def test_options_survive_being_written_down() -> None:
    config = DataConfig(split="random-3", events=EventConfig(time_steps=7, by="time"))
    assert DataConfig(**asdict(config)) == config


def test_a_batch_larger_than_the_data_is_an_error(picture_set: PictureSet) -> None:
    with pytest.raises(
        UsageError, match=r"^--data\.batch_size 81 is more than the training pictures; give at most 80$"
    ):
        made(picture_set, replace(SMALL, batch_size=81))


def test_validation_without_held_out_pictures_is_an_error(picture_set: PictureSet) -> None:
    module = made(picture_set, replace(SMALL, held_out=0.0))
    assert module.sizes["train"] == 100
    with pytest.raises(UsageError, match=r"--data\.held_out 0 leaves nothing"):
        module.val_dataloader()
