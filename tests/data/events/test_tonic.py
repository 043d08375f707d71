import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from spikeback.data.events.decode import FrameOptions
from spikeback.data.sets.tonic import tonic_set
from spikeback.data.split import hold_out
from spikeback.errors import UsageError

OPTIONS = FrameOptions(time_steps=2)
XYTP = np.dtype([("x", int), ("y", int), ("t", int), ("p", int)])


class Base:
    """What tonic's own sets have in common: recordings below save_to/<name of the class>, fetched if they lack."""

    sensor_size: Any = (5, 3, 2)  # (width, height, polarities)
    dtype = XYTP
    classes: Any = ("no", "yes")

    def __init__(self, save_to: str) -> None:
        self.location_on_system = str(Path(save_to) / type(self).__name__)
        if not Path(self.location_on_system).is_dir():
            self.download()
        files = sorted(Path(self.location_on_system).glob(f"{self.folder()}/*.npy"), reverse=True)
        self.data = [str(file) for file in files]
        self.targets: list[Any] = [self.label(int(file.stem)) for file in files]

    def folder(self) -> str:
        return "."

    def label(self, number: int) -> Any:
        return number % 2

    def download(self) -> None:
        raise OSError("no network")

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, index: int) -> tuple[np.ndarray, Any]:
        return np.load(self.data[index]), self.targets[index]


class Divided(Base):
    def __init__(self, save_to: str, train: bool = True) -> None:
        self.train = train
        super().__init__(save_to)

    def folder(self) -> str:
        return "Train" if self.train else "Test"


class Whole(Base):
    classes = {"no": 0, "yes": 1}  # noqa: RUF012


class Named(Base):
    classes = ()

    def label(self, number: int) -> str:
        return f"class {number % 3}"


class Uneven(Base):
    sensor_size = None


class ByName(Base):
    def __init__(self, save_to: str, split: str = "train") -> None:
        assert split in ("train", "valid", "test")
        self.split = split
        super().__init__(save_to)

    def folder(self) -> str:
        return self.split


class Elsewhere:
    """Lies in a folder of another name, and knows its sensor and its files only once it is open, as SMNIST does."""

    def __init__(self, save_to: str) -> None:
        self.sensor_size = (5, 3, 2)
        self.location_on_system = str(Path(save_to) / "lower")
        self.files = sorted(Path(self.location_on_system).glob("*.npy"))

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> tuple[np.ndarray, Any]:
        return np.load(self.files[index]), index % 2


class Exits(Base):
    def __init__(self, save_to: str) -> None:
        print("\n  WARNING: put it\n  there by hand")
        sys.exit()


class Demands(Base):
    def __init__(self, save_to: str, split: str, data_selection: str) -> None:
        super().__init__(save_to)


class Line(Base):
    sensor_size = (5, 1, 1)
    classes = np.array([b"no", b"yes"])


class Boxes(Base):
    def label(self, number: int) -> Any:
        return np.zeros((2, 4))


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """20 recordings of each set (Divided, ByName: 12 + 8); number n has two ON events at y = n % 3, x = n % 5."""
    kinds = {kind.__name__: kind for kind in (Divided, ByName, Whole, Named, Uneven, Line, Boxes)}
    kinds |= {kind.__name__: kind for kind in (Elsewhere, Exits, Demands)}
    module, datasets = ModuleType("tonic"), SimpleNamespace(__all__=list(kinds), Missing=None, **kinds)
    module.__version__ = "9.9"  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "tonic", module)
    monkeypatch.setitem(sys.modules, "tonic.datasets", datasets)  # type: ignore[arg-type]
    for name in kinds:
        for n in range(20):
            halves = {"Divided": ("Train", "Test"), "ByName": ("train", "test")}.get(name, (".", "."))
            folder = "lower" if name == "Elsewhere" else name
            file = tmp_path / folder / halves[n >= 12] / f"{n:02d}.npy"
            file.parent.mkdir(parents=True, exist_ok=True)
            events = np.array([(n % 5, n % 3, 10, 1), (n % 5, n % 3, 20, 1)], XYTP)
            np.save(file, events[["x", "t"]] if name == "Line" else events)
    return tmp_path


@pytest.mark.parametrize("name", ["Divided", "ByName"])
def test_what_tonic_divides_stays_divided(root: Path, name: str) -> None:
    loaded = tonic_set(name, root, OPTIONS)
    assert (loaded.name, loaded.split, loaded.sensor, loaded.classes) == (name, "official", (3, 5), ("no", "yes"))
    assert loaded.provenance == f"{name} as tonic 9.9 reads it, split official"
    for part, numbers in ((loaded.train, range(12)), (loaded.test, range(12, 20))):  # though tonic lists them backwards
        assert part.labels.tolist() == [n % 2 for n in numbers]
        at = part.read(torch.arange(len(part))).nonzero()
        assert at.tolist() == [[i, t, 1, n % 3, n % 5] for i, n in enumerate(numbers) for t in (0, 1)]


def test_what_is_not_divided_is_drawn_by_seed(root: Path) -> None:
    for split, seed in ((None, 0), ("random-0", 0), ("random-3", 3)):
        loaded = tonic_set("Whole", root, OPTIONS, split=split)
        train, test = hold_out(torch.arange(20) % 2, 0.1, seed)
        assert loaded.split == f"random-{seed}"
        assert loaded.classes == ("no", "yes")
        assert torch.equal(loaded.test.labels, test % 2)
        assert loaded.train.read(torch.arange(18)).nonzero()[::2, 3].tolist() == (train % 3).tolist()
    assert len(list((root / ".spikeback").iterdir())) == 1


def test_files_in_a_folder_of_another_name_are_found_and_part_of_the_key(root: Path) -> None:
    before = tonic_set("Elsewhere", root, OPTIONS)
    assert before.sensor == (3, 5)
    np.save(root / "lower" / "07.npy", np.array([(4, 2, 10, 1)] * 3, XYTP))
    after = tonic_set("Elsewhere", root, OPTIONS)
    assert after.hash() != before.hash()


def test_another_tonic_or_other_labels_are_another_entry(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tonic_set("Whole", root, OPTIONS)
    monkeypatch.setattr(sys.modules["tonic"], "__version__", "10")
    tonic_set("Whole", root, OPTIONS)
    monkeypatch.setattr(Whole, "label", lambda self, number: number // 10)
    tonic_set("Whole", root, OPTIONS)
    assert len(list((root / ".spikeback").iterdir())) == 3


def test_labels_that_are_words_are_the_classes(root: Path) -> None:
    loaded = tonic_set("Named", root, OPTIONS)
    assert loaded.classes == ("class 0", "class 1", "class 2")
    assert torch.cat([loaded.train.labels, loaded.test.labels]).bincount().tolist() == [7, 7, 6]


def test_recordings_of_any_size_are_brought_to_one(root: Path) -> None:
    loaded = tonic_set("Uneven", root, FrameOptions(time_steps=2, size=4))
    assert loaded.train.shape == (2, 2, 4, 4)
    assert loaded.sensor is None
    with pytest.raises(UsageError, match=r"tonic:Uneven differ in size; data\.size=48"):
        tonic_set("Uneven", root, OPTIONS)


def test_a_sensor_of_one_row_and_one_polarity_is_all_on_in_row_0(root: Path) -> None:
    loaded = tonic_set("Line", root, OPTIONS)
    assert loaded.classes == ("no", "yes")
    assert loaded.train.shape == (2, 2, 1, 5)
    assert loaded.train.read(torch.arange(18)).nonzero()[:, 2:4].unique(dim=0).tolist() == [[1, 0]]


def test_without_tonic_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tonic", None)
    monkeypatch.setitem(sys.modules, "tonic.datasets", None)
    with pytest.raises(
        UsageError, match=r"^data\.name=tonic:NMNIST needs tonic \(.*\): pip install 'spikeback\[tonic\]'$"
    ):
        tonic_set("NMNIST", tmp_path)


def test_nothing_is_fetched_unasked(root: Path) -> None:
    with pytest.raises(UsageError, match=r"elsewhere/Whole lacks files of tonic's Whole; data\.download=True"):
        tonic_set("Whole", root / "elsewhere")
    with pytest.raises(UsageError, match=r"tonic:Whole cannot be opened in .*elsewhere: no network"):
        tonic_set("Whole", root / "elsewhere", download=True)


@pytest.mark.parametrize(
    ("name", "split", "message"),
    [
        ("Missing", None, "tonic has no dataset 'Missing'; choose from Boxes, ByName, Demands, Divided, .*, Whole$"),
        ("Exits", None, r"tonic:Exits cannot be opened in \S+: WARNING: put it there by hand$"),
        (
            "Demands",
            None,
            r"tonic:Demands cannot be opened in \S+: .* missing 2 required .* 'split' and 'data_selection'$",
        ),
        ("Boxes", None, "tonic:Boxes has no single label for each recording"),
        ("Divided", "random-1", r"data\.split='random-1' is no split of tonic:Divided; it has official"),
        ("Whole", "official", r"data\.split='official' is no split of tonic:Whole; it has random-<seed>"),
        ("Whole", "random-x", r"data\.split='random-x' is no split of tonic:Whole; it has random-<seed>"),
    ],
)
def test_what_does_not_fit_is_named(root: Path, name: str, split: str | None, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        tonic_set(name, root, OPTIONS, split=split)


def test_a_broken_recording_is_named(root: Path) -> None:
    (root / "Whole" / "07.npy").write_bytes(b"x")
    with pytest.raises(UsageError, match=r"Whole/07\.npy cannot be decoded"):
        tonic_set("Whole", root, OPTIONS)
    np.save(root / "Whole" / "07.npy", np.array([(9, 0, 10, 1)], XYTP))
    with pytest.raises(UsageError, match=r"Whole/07\.npy cannot be decoded: .*x"):
        tonic_set("Whole", root, OPTIONS)
