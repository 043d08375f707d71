"""Datasets by name."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import torchvision
from torch import Tensor

from spikeback.data.config import PICTURES, EventConfig, check_name
from spikeback.data.pictures import DataSet, Pictures, PictureSet, fit
from spikeback.data.sets.fashion_mnist import load_embedded, load_fashion_mnist
from spikeback.data.sets.folder import load_folder
from spikeback.data.sets.static import CIFAR, LAYOUT, load_cifar, load_imagenet
from spikeback.errors import UsageError
from spikeback.files import as_path

if TYPE_CHECKING:
    from spikeback.data.events.decode import FrameOptions

SIZES = {"cifar10-dvs": 48, "simulated-dvs": 48}  # of frames where --data.size is empty; the others keep their own
FETCHED = {"cifar10": "CIFAR10", "cifar100": "CIFAR100", "fashion-mnist": "FashionMNIST"}  # torchvision's classes
NEEDS = {
    "folder": "a folder with train/ and test/ or one folder a class",
    "recordings": "the same of recordings of events (.aedat, .aedat4, .npz, .npy, .bin)",
    "cifar10": "the folder that holds cifar-10-batches-py/, or will with --data.download true",
    "cifar100": "the folder that holds cifar-100-python/, or will with --data.download true",
    "imagenet": f"the folder that holds {LAYOUT}",
    "cifar10-dvs": "the folder with <class>/cifar10_<class>_<i>.aedat; scripts/download_cifar10_dvs.py gets them",
    "nmnist": "the folder that holds {Train,Test}/<digit>/*.bin",
    "dvs128-gesture": "the folder with the recordings and their labels",
}


def load(
    name: str,
    root: str | Path | None = None,
    size: int | None = None,
    *,
    download: bool = False,
    unchecked: bool = False,
    cache: str | Path | None = None,
    split: str | None = None,
    events: EventConfig | None = None,
    only: Callable[[DataSet], Tensor] | None = None,
) -> DataSet:
    """Open a dataset; the options are those of `DataConfig`.

    "embedded": the Fashion-MNIST subset inside the package. "fashion-mnist": the whole set from the IDX files in `root`
    or from Debian's package dataset-fashion-mnist; without both, the subset, whose name says so. "folder": the tree of
    pictures at `root`, see `load_folder`. "cifar10", "cifar100", "imagenet": from `root`, see `static`. Frames of
    events, see `events`: "recordings", "cifar10-dvs", "nmnist", "dvs128-gesture", "tonic:<Name>" from `root`, and
    "simulated-dvs", made from `events.source`; of its training pictures those that `only`, pictures -> indices, names.
    `size` scales everything to size x size pixels.
    Raises UsageError for an unknown name and for a root that is missing, superfluous or lacks the files.
    """
    check_name(name)
    events = events or EventConfig()
    source = events.source if name == "simulated-dvs" else name  # what lies in `root`
    folder = _folder(name, source, root)
    if split is not None and not (name == "cifar10-dvs" or name.startswith("tonic:")):
        raise UsageError(
            f"--data.split {split} has no use with --data.name {name}; only cifar10-dvs and tonic's sets have several"
        )
    if download and not name.startswith("tonic:"):
        _fetch(source, folder)
    if name in PICTURES:
        return _pictures(name, folder, size, unchecked)
    options = _frame_options(events, size or SIZES.get(name), cache)
    if name == "simulated-dvs":
        return _filmed(_pictures(source, folder, None, unchecked), folder, options, events, only)
    return _frames(name, folder, options, split, download, events.sensor)


def _folder(name: str, source: str, root: str | Path | None) -> Path | None:
    """`root` as a path. Raises UsageError if it is missing or superfluous for the files of `source`."""
    if root == "":
        raise UsageError("--data.root is empty; give the folder with the files, . is the current one")
    if root is None and source not in ("embedded", "fashion-mnist"):
        raise UsageError(
            f"--data.name {source} needs --data.root, {NEEDS.get(source, 'the folder with the recordings')}"
        )
    if root is not None and source == "embedded":
        option = "data.name" if name == source else "data.events.source"
        raise UsageError(
            f"--data.root {root} has no use with --{option} {source}; try --{option} fashion-mnist or folder"
        )
    return None if root is None else as_path(root)


def _fetch(name: str, root: Path | None) -> None:
    """Let torchvision download what is not there. Raises UsageError if it cannot."""
    if name == "embedded":
        raise UsageError("--data.download true has no use with --data.name embedded: it is in the package")
    if name not in FETCHED:
        needs = NEEDS.get(name, "its recordings")
        raise UsageError(f"--data.download true fetches {', '.join(FETCHED)}; put {name} there by hand: {needs}")
    if root is None:
        raise UsageError(f"--data.download true needs --data.root, the folder to fetch {name} into")
    try:
        getattr(torchvision.datasets, FETCHED[name])(str(root), download=True)
    except (OSError, RuntimeError) as error:  # no network, no such page, or what came is not the file
        raise UsageError(f"--data.download true: {name} could not be fetched into {root}: {error}") from None


def _pictures(name: str, root: Path | None, size: int | None, unchecked: bool) -> DataSet:
    if name == "imagenet" and root:
        return load_imagenet(root, size)
    if name == "folder" and root:
        return load_folder(root, size)
    if name in CIFAR and root:
        return _resized(load_cifar(name, root, unchecked), size)
    whole = load_fashion_mnist(root, unchecked) if name == "fashion-mnist" else None
    return _resized(whole or load_embedded(), size)


def _resized(pictures: PictureSet, size: int | None) -> PictureSet:
    if size is None or pictures.train.images.shape[-2:] == (size, size):
        return pictures
    train, test = (Pictures(fit(part.images, size, size), part.labels) for part in (pictures.train, pictures.test))
    provenance = f"{pictures.provenance}; resized to {size} x {size}"
    return replace(pictures, provenance=provenance, train=train, test=test)


def _frame_options(events: EventConfig, size: int | None, cache: str | Path | None) -> "FrameOptions":
    from spikeback.data.events.decode import FrameOptions  # events only where they are asked for

    return FrameOptions(
        events.time_steps, size, events.by, events.mode, events.resize, events.axes, events.policy, events.start,
        events.duration, as_path(cache) if cache else None,
    )  # fmt: skip


def _filmed(
    pictures: DataSet,
    root: Path | None,
    options: "FrameOptions",
    events: EventConfig,
    only: Callable[[DataSet], Tensor] | None,
) -> DataSet:
    from spikeback.data.sets.simulated_dvs import simulated_dvs

    chosen = only(pictures) if only else None
    return simulated_dvs(pictures, options, events.preset, seed=events.seed, sensor=events.side, root=root, only=chosen)


def _frames(
    name: str,
    root: Path | None,
    options: "FrameOptions",
    split: str | None,
    download: bool,
    sensor: int | tuple[int, int] | None,
) -> DataSet:
    """A set of recordings in `root`, as frames."""
    from spikeback.data.events import decode as sets
    from spikeback.data.sets import cifar10_dvs as dvs
    from spikeback.data.sets import dvs128_gesture as gesture
    from spikeback.data.sets import recordings
    from spikeback.data.sets import tonic as tonic_sets

    assert root is not None
    if name.startswith("tonic:"):
        return tonic_sets.tonic_set(name.removeprefix("tonic:"), root, options, download, split)
    if name == "recordings":
        return recordings.recordings(root, options, (sensor, sensor) if isinstance(sensor, int) else sensor)
    if name == "cifar10-dvs":
        return dvs.cifar10_dvs(root, options, split or dvs.SPLITS[0])
    return sets.nmnist(root, options) if name == "nmnist" else gesture.dvs128_gesture(root, options)
