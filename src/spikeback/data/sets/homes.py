"""Where the published recordings lie, also as SpikingJelly and tonic leave them behind."""

from pathlib import Path

from spikeback.data.tree import entries
from spikeback.errors import UsageError

INNER = {  # folders within the root, in the order of preference: the original files, then SpikingJelly's arrays
    "cifar10-dvs": ("", "extract", "events_np"),
    "nmnist": ("", "extract", "NMNIST", "events_np"),
    "dvs128-gesture": ("", "extract/DvsGesture", "DvsGesture", "events_np"),
}
MARKS = {
    "cifar10-dvs": ("airplane/*.aedat", "airplane/*.npz"),
    "nmnist": ("Train", "train/[0-9]/[0-9][0-9][0-9][0-9][0-9].npz"),
    "dvs128-gesture": ("trials_to_train.txt", "train/10"),
}  # what a folder of the set holds
TONIC = {"cifar10-dvs": ("CIFAR10DVS", "airplane/*.aedat4"), "dvs128-gesture": ("DVSGesture", "ibmGesture*")}


def inner(name: str, root: Path) -> Path | None:
    """The folder at or within `root` that holds the set `name`, None if none does."""
    places = (root / folder for folder in INNER[name])
    return next((place for place in places if any(any(place.glob(mark)) for mark in MARKS[name])), None)


def home(name: str, root: Path) -> Path:
    """The same, or `root` itself, of which the reader will say what it lacks.

    Raises UsageError where the files are tonic's, or archives that nobody has unpacked, with what would work.
    """
    if place := inner(name, root):
        return place
    folder, mark = TONIC.get(name, ("", ""))
    for place in (root, root / folder) if folder else ():
        if any(place.glob(mark)):
            raise UsageError(_of_tonic(name, place, folder))
    if (root / "download").is_dir():
        raise UsageError(
            f"--data.root {root} holds only what SpikingJelly has fetched, in download/ ({_some(root / 'download')}); "
            f"unpack these archives into {root / 'extract'}"
        )
    return root


def _of_tonic(name: str, place: Path, folder: str) -> str:
    """What to say of files as tonic has packed them anew: their axes or times are not those of the original."""
    said = f"{place} holds tonic's version of {name}; --data.name tonic:{folder} --data.root"
    if place.resolve().name == folder:
        return f"{said} {place.resolve().parent} reads it"
    return f"{said} PARENT reads it if the folder is called PARENT/{folder}"


def _some(folder: Path) -> str:
    names = [path.name for path in entries(folder)]
    return ", ".join([*names[:2], *(["..."] if len(names) > 2 else [])]) or "empty"
