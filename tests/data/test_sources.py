"""One file a dataset: what is registered, and a dataset that comes from outside the package."""

import importlib
import json
from pathlib import Path

import numpy as np
import pytest
import torch

import spikeback as sb
from spikeback.cli.main import main
from spikeback.data import DataConfig, DataModule, EventConfig, ImageSet, Source, load, register, sources
from spikeback.data.check import check
from spikeback.data.sets import source as registry
from spikeback.data.sets.built_in import BUILT_IN
from spikeback.errors import UsageError
from spikeback.lab.paper.measured import protocol

from .test_training import train


@pytest.fixture
def digits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a dataset from outside, whose module is imported; afterwards it is forgotten."""
    monkeypatch.setattr(registry, "_SOURCES", dict(registry._SOURCES))
    rng, arrays = np.random.default_rng(0), {}
    for half, count in (("train", 48), ("test", 12)):
        arrays[f"{half}_images"] = rng.integers(0, 256, (count, 1, 9, 9), dtype=np.uint8)
        arrays[f"{half}_labels"] = np.arange(count) % 3
    np.savez(tmp_path / "digits.npz", **arrays)
    importlib.reload(importlib.import_module(f"{__package__}.digits"))  # registers it, also the second time
    return tmp_path


def test_a_dataset_from_outside_is_loaded_by_name(digits: Path) -> None:
    dataset = load("digits", digits, 6)
    assert isinstance(dataset, ImageSet)
    assert (dataset.classes, dataset.train.shape) == (("0", "1", "2"), (1, 6, 6))
    assert dataset.provenance.endswith("resized to 6 x 6")
    with np.load(digits / "digits.npz") as arrays:
        assert torch.equal(vars(load("digits", digits))["train"].images, torch.from_numpy(arrays["train_images"]))


def test_its_own_size_is_what_it_has_where_none_is_asked_for(digits: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(type(registry.find("digits")), "size", 7)
    assert [load("digits", digits, size).train.shape for size in (None, 5)] == [(1, 7, 7), (1, 5, 5)]


def test_its_facts_reach_the_training(digits: Path) -> None:
    config = DataConfig("digits", str(digits), batch_size=8)
    data = DataModule(config, seed=0)
    data.setup()
    assert (data.mirror, data.mean.tolist(), data.std.tolist()) == (None, [0.5], [0.25])
    config.flip = True
    with pytest.raises(UsageError, match=r"^data\.flip=True is wrong for My digits"):
        DataModule(config, seed=0).setup()


@pytest.mark.filterwarnings("ignore:fidelity 0.7 was asked for")  # noise has none
@pytest.mark.slow
def test_it_is_trained_and_diagnosed(digits: Path, tmp_path: Path) -> None:
    data = DataConfig("digits", str(digits), 8, 16, held_out=0.2)
    dataset = train(tmp_path, data)["dataset"]
    assert (dataset["name"], dataset["shape"], dataset["train"]) == ("My digits", [1, 8, 8], 39)
    module = DataModule(data, 0)
    module.setup()
    net = sb.create_model("spiking_resnet20_he", 3, "cifar", 2, 1, 4)
    assert sb.diagnose(net, *module.probe(8), passes=()).verdict.kind


@pytest.mark.slow
def test_the_command_line_knows_it(digits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("spikeback.cli.diagnose.save_diagnosis", lambda facts, out: [])  # drawing takes seconds
    monkeypatch.setattr("spikeback.cli.diagnose.write_diagnosis", lambda facts, path: path)
    data = ["--data", "digits", "--data.root", str(digits), "--data.batch_size", "8"]
    model = ["--model.name", "spiking_resnet20_he", "--model.time_steps", "1", "--model.width", "4"]
    main(["diagnose", *data, *model, "--samples", "8", "--passes", "coherence", "--out", str(tmp_path / "out")])
    found = json.loads((tmp_path / "out" / "diagnosis.json").read_text())
    assert (found["batch_size"], found["classes"]) == (8, 3)


@pytest.mark.slow
def test_its_images_can_be_filmed(digits: Path, tmp_path: Path) -> None:
    events = EventConfig(time_steps=2, source="digits", sensor=8)
    film = load("simulated-dvs", digits, 8, events=events, cache=tmp_path / "cache")
    assert (film.name, film.train.shape) == ("simulated DVS of My digits", (2, 2, 8, 8))
    assert vars(film)["mirror"] is None


def test_what_lacks_is_said_in_its_own_words(digits: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"^data\.name=digits needs data\.root, the folder that holds digits\.npz$"):
        load("digits")
    (digits / "digits.npz").unlink()
    with pytest.raises(UsageError, match=r"digits\.npz is missing; data\.root must be the folder that holds"):
        load("digits", digits)
    with pytest.raises(UsageError, match=r"put digits there by hand: the folder that holds digits\.npz$"):
        load("digits", digits, download=True)
    with pytest.raises(
        UsageError, match=r"^data\.name='digit' is unknown \(did you mean 'digits'\?\); choose from embedded,"
    ):
        load("digit", digits)
    with pytest.raises(UsageError, match=r"is like no dataset; expected one of these: (?!.*digits\.npz)"):
        check(tmp_path)  # which cannot recognise it


def test_without_its_module_the_name_is_unknown() -> None:
    with pytest.raises(UsageError, match=r"^data\.name='digits' is unknown; choose from embedded,"):
        DataConfig("digits")


def test_a_dataset_needs_a_name_of_its_own(digits: Path) -> None:
    class Taken(Source):
        name = "cifar10"

    class Nameless(Source):
        pass

    with pytest.raises(UsageError, match="the name 'cifar10' is taken by CIFAR10; choose another"):
        register(Taken())
    with pytest.raises(UsageError, match=r"Nameless\.name must be the name of the dataset, a text, not None"):
        register(Nameless())
    assert type(registry.find("cifar10")).__name__ == "CIFAR10"


def test_every_dataset_says_what_it_needs() -> None:
    assert [type(source) for source in sources()] == [*BUILT_IN]
    for source in sources():
        assert source.root != "needed" or source.needs or source.name in ("simulated-dvs", "tonic:<Name>")
        assert not source.published or source.published.classes == len(
            source.classes or range(source.published.classes)
        )
        assert not source.home or source.home.name == source.name
        assert set(source.acting()) <= set(vars(EventConfig()))


def test_tables_take_images_as_mirrored_filmed_ones_too() -> None:
    assert [protocol({"data": {"name": name}})["data.flip"] for name in ("embedded", "simulated-dvs")] == [True, True]


@pytest.mark.parametrize("name", ["nmnist", "dvs128-gesture", "recordings", "tonic:NMNIST", "folder"])
def test_tables_take_these_as_not_mirrored(name: str) -> None:
    assert protocol({"data": {"name": name}})["data.flip"] is False


def test_a_run_of_an_unknown_dataset_can_still_be_tabled() -> None:
    assert protocol({"data": {"name": "gone"}})["data.name"] == "gone"
