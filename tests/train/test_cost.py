"""What a training costs: multiply-accumulates of the paper's networks, hand-counted, and what follows from them."""

from dataclasses import replace

import pytest
import torch

import spikeback as sb
from spikeback.data import DataConfig
from spikeback.data.config import EventConfig
from spikeback.data.split import hold_out
from spikeback.errors import UsageError
from spikeback.lab.paper.cost import A100_ASSUMED, cost_text, forward_macs, gpu_hours, hours_text, training_macs
from spikeback.train import ModelConfig, Recipe, TrainConfig

STEM = {"cifar": 3 * 9 * 64 * 32 * 32, "imagenet": 3 * 49 * 64 * 112 * 112}  # MACs of the first convolution


def recipe(name: str = "cifar10", layers: int = 18, stem: str = "cifar", time_steps: int = 1) -> Recipe:
    data = DataConfig(name=name, events=EventConfig(time_steps=time_steps))
    return Recipe(data=data, model=ModelConfig(f"spiking_resnet{layers}", stem, time_steps))  # pyright: ignore


@pytest.mark.parametrize(
    ("name", "stem", "layers", "billions"),
    [
        ("cifar10", "cifar", 18, 0.555),
        ("cifar100", "cifar", 34, 1.159),
        ("imagenet", "imagenet", 18, 1.814),
        ("imagenet", "imagenet", 34, 3.664),
        ("cifar10-dvs", "dvs", 18, 1.248),
    ],
)
def test_one_time_step_takes_the_published_macs(name: str, stem: str, layers: int, billions: float) -> None:
    assert round(forward_macs(recipe(name, layers, stem)) / 1e9, 3) == billions


@pytest.mark.parametrize("stem", ["cifar", "imagenet"])
def test_a_still_image_passes_the_first_convolution_once(stem: str) -> None:
    name = {"cifar": "cifar10", "imagenet": "imagenet"}[stem]
    one, four = (forward_macs(recipe(name, 18, stem, steps)) for steps in (1, 4))
    assert four == 4 * one - 3 * STEM[stem]


def test_every_frame_of_events_passes_it() -> None:
    one, ten = (forward_macs(recipe("cifar10-dvs", 18, "dvs", steps)) for steps in (1, 10))
    assert ten == 10 * one


def test_counting_leaves_random_state_and_memory_alone() -> None:
    before = torch.random.get_rng_state()
    forward_macs(recipe())
    assert torch.equal(torch.random.get_rng_state(), before)


def test_smaller_images_and_networks_cost_less() -> None:
    small = replace(recipe(), data=DataConfig(name="cifar10", size=16))
    linear = 512 * 10
    assert 4 * (forward_macs(small) - linear) == forward_macs(recipe()) - linear
    assert forward_macs(replace(recipe(), model=ModelConfig(width=16, time_steps=1))) < forward_macs(recipe()) / 15


@pytest.mark.slow
def test_training_is_three_forward_passes_of_every_whole_batch_of_every_epoch() -> None:
    given = replace(recipe(), train=TrainConfig(epochs=7))
    assert training_macs(given, samples=300) == 3 * forward_macs(given) * 256 * 7
    assert training_macs(given) == 3 * forward_macs(given) * (45_000 // 128 * 128) * 7
    whole = replace(given, train=TrainConfig(epochs=7, best_on="test"))  # holds nothing out
    assert training_macs(whole) == 3 * forward_macs(given) * (50_000 // 128 * 128) * 7
    few = replace(given, data=DataConfig(name="cifar10", limit=1280))
    assert training_macs(few) == 3 * forward_macs(given) * 1280 * 7


def test_as_many_samples_are_left_as_the_data_module_leaves() -> None:
    train, _ = hold_out(torch.arange(50_000) % 100, 0.1)
    given = recipe("cifar100")
    assert training_macs(given) == training_macs(given, len(train))


def test_hours_follow_from_the_assumed_rate() -> None:
    assert gpu_hours(A100_ASSUMED * 3600) == 1
    assert [hours_text(hours * A100_ASSUMED * 3600) for hours in (0.832, 14.93, 2081.2)] == ["0.8", "14.9", "2,081"]
    macs = training_macs(recipe())
    assert cost_text(recipe(), 9) == (
        f"{macs:.1e} MACs a trial; {hours_text(macs)} GPU hours at an assumed 1e+13 MACs/s, "
        f"{hours_text(9 * macs)} for 9 trials"
    )


def test_a_folder_of_unknown_size_is_refused() -> None:
    with pytest.raises(UsageError, match=r"data\.name=folder .* cifar10, cifar100, imagenet"):
        training_macs(recipe("folder"))


def test_meta_network_is_the_one_that_trains() -> None:
    """The count is that of the layers' shapes, taken by hand from a real forward pass."""
    net = sb.create_model("spiking_resnet20_he", width=4, time_steps=2)
    counted = 0

    def count(module: torch.nn.Module, _: object, output: torch.Tensor) -> None:
        nonlocal counted
        weight = module.weight
        assert isinstance(weight, torch.Tensor)
        counted += output.numel() * weight[0].numel()

    for module in net.modules():
        if isinstance(module, torch.nn.Conv2d | torch.nn.Linear):
            module.register_forward_hook(count)
    net(torch.zeros(1, 3, 32, 32))
    given = replace(recipe(), model=ModelConfig("spiking_resnet20_he", width=4, time_steps=2))
    assert forward_macs(given) == counted
