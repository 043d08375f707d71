import random
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import lightning
import numpy as np
import pytest
import torch
from torch import Tensor

from spikeback.data import DataConfig, DataModule, EventConfig, Images, ImageSet, hold_out, split_hash
from spikeback.errors import UsageError

from .batches import SMALL, RecordingSet, epoch, made, same


def test_batches_have_the_stated_shapes(image_set: ImageSet) -> None:
    module = made(image_set)
    batches = epoch(module, 0)
    assert len(batches) == 10  # 80 images of 100 are left, in eights
    for x, y in batches:
        assert (x.shape, x.dtype) == ((8, 2, 6, 5), torch.float32)
        assert (y.shape, y.dtype) == ((8,), torch.int64)


def test_training_drops_the_incomplete_batch_and_evaluation_none(image_set: ImageSet) -> None:
    module = made(image_set, replace(SMALL, batch_size=9))
    assert [len(y) for _, y in epoch(module, 0)] == [9] * 8
    assert [len(y) for _, y in module.val_dataloader()] == [18, 2]
    assert [len(y) for _, y in module.test_dataloader()] == [13]


def test_attributes_describe_the_split(image_set: ImageSet) -> None:
    module = made(image_set)
    _, held_out = hold_out(image_set.train.labels, 0.2, 0)
    assert module.classes == ("a", "b", "c")
    assert module.shape == (2, 6, 5)
    assert module.sizes == {"train": 80, "held_out": 20, "test": 13}
    assert module.hash == image_set.hash()
    assert module.split_hash == split_hash(held_out)
    assert module.describe() == {
        "name": "tiny",
        "provenance": "made up",
        "shape": [2, 6, 5],
        "classes": ["a", "b", "c"],
        "train": 80,
        "held_out": 20,
        "test": 13,
        "hash": image_set.hash(),
        "split_hash": split_hash(held_out),
        "split": None,
        "options": {"mean": module.mean.tolist(), "std": module.std.tolist(), "crop_padding": 1, "mirror": -1},
    }


def test_statistics_are_those_of_the_training_part_alone(image_set: ImageSet) -> None:
    train, held_out = hold_out(image_set.train.labels, 0.2, 0)
    images = image_set.train.images.clone()
    images[held_out] = 0  # other held-out images
    other = replace(image_set, train=Images(images, image_set.train.labels))
    module, changed = made(image_set), made(other)
    assert torch.equal(module.mean, changed.mean)
    assert torch.equal(module.std, changed.std)
    torch.testing.assert_close(module.mean.double(), (images[train].double() / 255).mean((0, 2, 3)), rtol=1e-7, atol=0)


def test_held_out_images_are_never_trained_on(image_set: ImageSet) -> None:
    module = made(image_set, replace(SMALL, crop_padding=0, flip=False, batch_size=1))
    seen = {x.numpy().tobytes() for x, _ in epoch(module, 0)}
    held_out = {x[None].numpy().tobytes() for batch, _ in module.val_dataloader() for x in batch}
    assert (len(seen), len(held_out)) == (80, 20)
    assert not seen & held_out


@pytest.mark.parametrize("workers", [1, 2])
def test_batches_are_the_same_for_any_number_of_workers(image_set: ImageSet, workers: int) -> None:
    alone, helped = made(image_set), made(image_set, replace(SMALL, num_workers=workers))
    one, other = alone.train_dataloader(), helped.train_dataloader()
    for number in (0, 1, 5):
        assert same(epoch(alone, number, one), epoch(helped, number, other))
    assert same(list(alone.val_dataloader()), list(helped.val_dataloader()))


def test_an_epoch_is_the_same_whatever_came_before(image_set: ImageSet) -> None:
    module, loader = made(image_set), made(image_set).train_dataloader()
    run = [epoch(module, number, loader) for number in range(4)]
    assert same(epoch(module, 3), run[3])
    assert not same(run[2], run[3])


def test_the_seed_changes_order_and_augmentation_but_not_the_split(image_set: ImageSet) -> None:
    one, other = made(image_set, seed=0), made(image_set, seed=1)
    assert not same(epoch(one, 0), epoch(other, 0))
    assert one.split_hash == other.split_hash
    assert one.split_hash != made(image_set, replace(SMALL, split_seed=1)).split_hash


def test_global_random_state_is_neither_used_nor_changed(image_set: ImageSet) -> None:
    def everything() -> list[tuple[Tensor, Tensor]]:
        module = made(image_set)
        return [*epoch(module, 1), *module.val_dataloader(), *module.test_dataloader(), module.probe(5)]

    torch.manual_seed(0)
    before = torch.get_rng_state(), random.getstate(), repr(np.random.get_state())  # noqa: NPY002
    batches = everything()
    assert torch.equal(torch.get_rng_state(), before[0])
    assert random.getstate() == before[1]
    assert repr(np.random.get_state()) == before[2]  # noqa: NPY002
    torch.manual_seed(1)
    assert same(everything(), batches)


def test_probe_is_balanced_fixed_and_not_augmented(image_set: ImageSet) -> None:
    module = made(image_set)
    x, y = module.probe(9)
    assert y.tolist() == [0, 1, 2] * 3
    assert x.shape == (9, 2, 6, 5)
    assert same([module.probe(9)], [made(image_set, seed=7).probe(9)])
    assert torch.equal(module.probe(4)[0], x[:4])
    plain = made(image_set, replace(SMALL, crop_padding=0, flip=False, batch_size=1))
    assert {each[None].numpy().tobytes() for each in x} <= {each.numpy().tobytes() for each, _ in epoch(plain, 0)}


def test_use_all_holds_nothing_out_and_validates_on_the_test_images(image_set: ImageSet) -> None:
    module = made(image_set, use_all=True)
    assert module.sizes == {"train": 100, "held_out": 0, "test": 13}
    assert same(list(module.val_dataloader()), list(module.test_dataloader()))


def test_limit_keeps_the_first_of_every_class(image_set: ImageSet) -> None:
    module = made(image_set, replace(SMALL, limit=15))
    assert module.sizes == {"train": 15, "held_out": 20, "test": 13}
    assert module.probe(99)[1].bincount().tolist() == [5, 5, 5]
    assert made(image_set, replace(SMALL, limit=1000)).sizes["train"] == 80


def test_setup_reads_the_images_once(monkeypatch: pytest.MonkeyPatch, image_set: ImageSet) -> None:
    calls = []
    monkeypatch.setattr("spikeback.data.module.load", lambda *asked, **_: calls.append(asked) or image_set)
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
def test_lightning_resumes_with_the_batches_of_the_uninterrupted_run(image_set: ImageSet, tmp_path: Path) -> None:
    def train(epochs: int, checkpoint: str | None = None) -> tuple[lightning.Trainer, Recorder]:
        quiet: dict[str, Any] = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
        trainer = lightning.Trainer(
            accelerator="cpu", max_epochs=epochs, default_root_dir=tmp_path, enable_checkpointing=False, **quiet
        )
        recorder = Recorder()
        trainer.fit(recorder, datamodule=DataModule(SMALL, 0, image_set), ckpt_path=checkpoint)
        return trainer, recorder

    whole = train(3)[1].seen
    assert not same(whole[0], whole[1])
    assert same(whole[2], epoch(made(image_set), 2))
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
            "data.name='cifar' is unknown (did you mean 'cifar10'?); choose from embedded, fashion-mnist, folder, "
            "cifar10, cifar100, imagenet, recordings, cifar10-dvs, nmnist, dvs128-gesture, simulated-dvs, tonic:<Name>",
        ),
        ("size", 0, "data.size must be at least 1, not 0"),
        ("size", 100000, "data.size must be at most 4096, not 100000"),
        ("batch_size", 0, "data.batch_size must be at least 1, not 0"),
        ("split_seed", -1, "data.split_seed must be at least 0, not -1"),
        ("cutout", -1, "data.cutout must be at least 0, not -1"),
        ("events", {"time_steps": 0}, "data.events.time_steps must be at least 1, not 0"),
        ("events", {"roll": -1}, "data.events.roll must be at least 0, not -1"),
        ("crop_padding", -1, "data.crop_padding must be at least 0, not -1"),
        ("num_workers", -2, "data.num_workers must be at least 0, not -2"),
        ("limit", 0, "data.limit must be at least 1, not 0"),
        ("held_out", 1.0, "data.held_out must be a fraction, 0 <= held_out < 1, not 1.0"),
        ("held_out", float("nan"), "data.held_out must be a fraction, 0 <= held_out < 1, not nan"),
    ],
)
def test_each_wrong_option_is_named_as_typed(option: str, value: Any, message: str) -> None:
    with pytest.raises(UsageError) as error:
        DataConfig(**{option: value})
    assert str(error.value) == message


def test_what_is_judged_is_what_the_loader_serves(image_set: ImageSet, recording_set: RecordingSet) -> None:
    for dataset in (image_set, recording_set):
        for use_all in (False, True):
            module = made(dataset, use_all=use_all)
            dim = 1 if module.time_steps else 0
            served = torch.cat([x for x, _ in module.val_dataloader()], dim)
            assert torch.equal(module.judged(7)[0], served.narrow(dim, 0, 7))
            assert torch.equal(module.judged(999)[0], served)


def test_published_statistics_are_used_as_they_are(image_set: ImageSet) -> None:
    module = made(replace(image_set, statistics=((0.5, 0.25), (0.125, 2.0))))
    assert module.mean.tolist() == [0.5, 0.25]
    options = module.describe()["options"]
    assert (options["mean"], options["std"]) == ([0.5, 0.25], [0.125, 2.0])


def test_workers_are_started_where_samples_need_much_work(
    image_set: ImageSet, recording_set: RecordingSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda process: set(range(6)))
    slow = replace(SMALL, auto_augment=True)
    cases = (image_set, SMALL), (image_set, slow), (recording_set, SMALL)
    assert [made(dataset, config).train_dataloader().num_workers for dataset, config in cases] == [0, 5, 0]
    assert made(image_set, slow).test_dataloader().num_workers == 0
    assert made(image_set, replace(slow, num_workers=2)).test_dataloader().num_workers == 2


def test_options_survive_being_written_down() -> None:
    config = DataConfig(split="random-3", events=EventConfig(time_steps=7, by="time"))
    assert DataConfig(**asdict(config)) == config


def test_a_batch_larger_than_the_data_is_an_error(image_set: ImageSet) -> None:
    with pytest.raises(UsageError, match=r"^data\.batch_size=81 is more than the training images; give at most 80$"):
        made(image_set, replace(SMALL, batch_size=81))


def test_validation_without_held_out_images_is_an_error(image_set: ImageSet) -> None:
    module = made(image_set, replace(SMALL, held_out=0.0))
    assert module.sizes["train"] == 100
    with pytest.raises(UsageError, match=r"data\.held_out=0 leaves nothing"):
        module.val_dataloader()
