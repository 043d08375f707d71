"""N-MNIST: recordings of MNIST's digits, numbered throughout each half."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from torch import Tensor

from spikeback.data.events.decode import FrameOptions, class_files, tree_set
from spikeback.data.events.frame_set import FrameSet
from spikeback.data.events.nmnist import NMNIST as SENSOR
from spikeback.data.sets.homes import Home
from spikeback.data.sets.layouts import Layout
from spikeback.data.sets.source import LoadOptions, Source
from spikeback.errors import UsageError

CLASSES = tuple("0123456789")
NMNIST = {"Train": 60000, "Test": 10000}  # recordings, numbered from 00001 like MNIST's images
ARRAYS = "train/[0-9]/[0-9][0-9][0-9][0-9][0-9].npz"  # SpikingJelly's
HOME = Home("nmnist", ("", "extract", "NMNIST", "events_np"), ("Train", ARRAYS))


class _Layout(Layout):
    def parts(self, root: Path) -> list[str]:
        arrays = any(root.glob(ARRAYS))
        return [half for each in self.halves if (root / (half := each.lower() if arrays else each)).is_dir()]

    def names(self, half: str, each: str, files: Sequence[Path]) -> Sequence[str]:
        return numbers(half, ".npz" if files and all(path.suffix == ".npz" for path in files) else ".bin")

    def groups(self, classes: Mapping[str, list[Path]]) -> Mapping[str, list[Path]]:
        return {".": [path for files in classes.values() for path in files]}

    def refuse(self, root: Path, shapes: Mapping[Path, tuple[int, ...]]) -> None:
        nmnist_files(root)


class NMNISTSource(Source):
    """N-MNIST, see `nmnist`."""

    name, title = "nmnist", "N-MNIST"
    needs = "the folder that holds {Train,Test}/<digit>/*.bin"
    frames = True
    sensor = SENSOR
    events = ("policy",)
    flip = False  # a mirrored 2 is no 2
    classes = CLASSES
    layout = _Layout(("Train", "Test"), r"\d", (".bin", ".npz"), SENSOR, known=CLASSES)
    home = HOME

    def open(self, root: Path, options: LoadOptions) -> FrameSet:
        return nmnist(root, options.frames())


def numbers(half: str, suffix: str = ".bin") -> list[str]:
    """The names of the recordings in a half of N-MNIST, in order."""
    return [f"{i:05d}{suffix}" for i in range(1, NMNIST[half.capitalize()] + 1)]


def nmnist(root: Path, options: FrameOptions | None = None) -> FrameSet:
    """N-MNIST from root/Train/<digit>/<number>.bin and root/Test/...; `options` None: 10 frames of 34 x 34.

    The files may lie in root/extract or root/NMNIST, as SpikingJelly and tonic leave them, or be SpikingJelly's .npz in
    root/events_np/train/<digit>/ and test/: the same frames.
    Raises UsageError naming the folder, the first recording that is missing, or a file that cannot be read.
    """
    root = HOME.of(root)
    origin, halves = "N-MNIST, whole set, official split", nmnist_files(root)
    named = [
        [root / half / path.parent.name / f"{path.stem}.bin" for path in files]
        for half, (files, _) in zip(NMNIST, halves, strict=True)
    ]  # the split is the same whatever the files are
    return tree_set("N-MNIST", origin, root, halves, CLASSES, SENSOR, options or FrameOptions(), named)


def nmnist_files(root: Path) -> list[tuple[list[Path], Tensor]]:
    """(files, labels) of the training and of the test recordings. Raises UsageError naming what does not fit."""
    halves, arrays = [], (root / "train").is_dir() and not (root / "Train" / "0").is_dir()
    suffix = ".npz" if arrays else ".bin"
    for official, count in NMNIST.items():
        half = official.lower() if arrays else official
        if not (root / half).is_dir():
            raise UsageError(f"data.root={root} lacks the folder {half}; expected Train/<digit>/ and Test/<digit>/")
        paths, labels = class_files(root / half, CLASSES, suffix)
        expected = set(numbers(half, suffix))
        if missing := sorted(expected.difference(path.name for path in paths)):
            raise UsageError(f"{root / half} lacks {len(missing)} of {count} recordings, the first is {missing[0]}")
        if len(paths) > count:
            odd = next((path for path in paths if path.name not in expected), paths[-1])
            raise UsageError(f"{root / half} holds {len(paths)} recordings, expected {count}; {odd} is one too many")
        halves.append((paths, labels))
    return halves
