"""Datasets by name."""

from collections.abc import Callable
from pathlib import Path

from torch import Tensor

from spikeback.data.events.config import EventConfig
from spikeback.data.images import DataSet
from spikeback.data.sets import built_in  # noqa: F401 - registers them
from spikeback.data.sets.source import LoadOptions, Source, find, sources
from spikeback.errors import UsageError
from spikeback.files import as_path


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
    """Open the dataset that is registered as `name`; the options are those of `DataConfig`.

    Each dataset is a file in `spikeback.data.sets`, which says what it reads from `root`. `size` scales everything to
    size x size pixels. Of the training images that "simulated-dvs" films, it films those that `only`, images ->
    indices, names.
    Raises UsageError for an unknown name and for a root that is missing, superfluous or lacks the files.
    """
    source, events = find(name), events or EventConfig()
    origin = source.origin(events)
    folder = _folder(source, origin, root)
    if split is not None and not source.splits:
        several = " and ".join(each.name for each in sources() if each.splits)
        raise UsageError(f"data.split={split} has no use with data.name={name}; only {several} have several")
    if download:
        origin.fetch(folder)
    options = LoadOptions(events, size, download, unchecked, as_path(cache) if cache else None, split, only)
    return source.load(folder, options)


def _folder(source: Source, origin: Source, root: str | Path | None) -> Path | None:
    """`root` as a path. Raises UsageError if it is missing or superfluous for the files of `origin`."""
    if root == "":
        raise UsageError("data.root is empty; give the folder with the files, . is the current one")
    if root is None and origin.root == "needed":
        needs = origin.needs or "the folder with its files"
        raise UsageError(f"data.name={origin.name} needs data.root, {needs}")
    if root is not None and origin.root == "none":
        option = "data.name" if origin is source else "data.events.source"
        raise UsageError(
            f"data.root={root} has no use with {option}={origin.name}; try {option}=fashion-mnist or folder"
        )
    return None if root is None else as_path(root)
