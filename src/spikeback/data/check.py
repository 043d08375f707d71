"""What a folder is: which dataset, how many samples of each class, which files are broken, and what is missing."""

import warnings
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from itertools import chain
from pathlib import Path

from torch import Tensor

from spikeback.data.events.parallel import parallel
from spikeback.data.load import load
from spikeback.data.sets.folder import list_folder
from spikeback.data.sets.layouts import Layout, Tree, held_out_hash
from spikeback.data.sets.source import Source, sources
from spikeback.data.sheet import MOST, spread
from spikeback.data.tree import DEPTH, entries, folders, tried
from spikeback.errors import UsageError

SAMPLES = 8  # of each class that are shown


@dataclass
class Finding:
    """What was found: `source` is the name for data.name, `counts` half -> class -> samples, `broken` and `missing` a
    line each, `refused` why `load` would not take it otherwise, `hashes` name -> sha256, `samples` class -> images
    (C, H, W) or frames (T, 2, H, W)."""

    source: str
    counts: dict[str, dict[str, int]] = field(default_factory=dict)
    broken: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    refused: str | None = None
    hashes: dict[str, str] = field(default_factory=dict)
    samples: dict[str, list[Tensor]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)  # worth knowing, nothing to mend
    checked: int = 0  # files opened

    @property
    def whole(self) -> bool:
        """Whether nothing is broken or missing, and `load` takes it."""
        return not self.broken and not self.missing and self.refused is None


def check(root: Path, most: int | None = None) -> Finding:
    """Say what `root` is, and open every file in it, or `most` of them, evenly spread.

    Raises UsageError if it is not a folder, or like none of the datasets.
    """
    if not root.is_dir():
        raise UsageError(f"{root} is not a folder; name one that holds a dataset")
    for source in sources():
        if files := source.packed(root):
            return _check_packed(source.name, root, files)
    homes = [source.home for source in sources() if source.home]
    for place in [*filter(None, (home.inside(root) for home in homes)), root]:
        if found := _find(place):
            return _check_tree(*found, place, most)
    for home in homes:
        home.of(root)  # says whose the files are
    if within := _within(root):
        raise UsageError(f"{root} holds no dataset itself; did you mean {' or '.join(map(str, within[:3]))}?")
    held = [*chain(*map(_held, [root, *folders(root)]))]
    for _, layout in _layouts():
        if layout.own and layout.kind and any(map(layout.kind.fits, held)):
            list_folder(root, layout.kind)  # says what is wrong
    recognised = [source.needs for source in sources() if source.layout or source.packed(root) is not None]
    raise UsageError(f"{root} is like no dataset; expected one of these: {'; '.join(filter(None, recognised))}")


def _layouts() -> list[tuple[Source, Layout]]:
    """The datasets that lie in folders, those with classes of any names last."""
    found = [(source, source.layout) for source in sources() if source.layout]
    return sorted(found, key=lambda each: each[1].own)


def _find(root: Path) -> tuple[Source, Layout, Tree] | None:
    """The first dataset that a folder is like, and its files; None if it is like none."""
    trees = ((source, layout, layout.tree(root)) for source, layout in _layouts())
    return next((found for found in trees if found[1].fits(found[2])), None)


def _within(root: Path) -> list[Path]:
    """Folders like a dataset, of the first depth below `root` where there are any."""
    level = [root]
    for _ in range(DEPTH):
        level = [path for folder in level for path in tried(folder, root)]
        packed = lambda folder: any(source.packed(folder) for source in sources())
        if found := [folder for folder in level if packed(folder) or (_held(folder) and _find(folder))]:
            return found
    return []


def _held(folder: Path) -> list[Path]:
    """What a folder holds; nothing if it cannot be read."""
    with suppress(UsageError):
        return entries(folder)
    return []


def _check_packed(name: str, root: Path, tests: Mapping[Path, Callable[[], object]]) -> Finding:
    """A set of a few large files: is each there and as published?"""
    finding = Finding(name, checked=sum(path.exists() for path in tests))
    for path, test in tests.items():
        try:
            test()
        except UsageError as error:
            (finding.broken if path.exists() else finding.missing).append(str(error))
    if finding.whole:
        dataset = load(name, root)
        for half, split in (("train", dataset.train), ("test", dataset.test)):
            counts = split.labels.bincount(minlength=len(dataset.classes)).tolist()
            finding.counts[half] = dict(zip(dataset.classes, counts, strict=True))
        labels = dataset.train.labels
        finding.hashes = {"dataset": dataset.hash(), **held_out_hash(labels)}
        for label, each in spread(list(enumerate(dataset.classes)), MOST):
            finding.samples[each] = [*dataset.train.read((labels == label).nonzero().flatten()[:SAMPLES])]
    return finding


def _check_tree(source: Source, layout: Layout, tree: Tree, root: Path, most: int | None) -> Finding:
    """A set of many small files: open them in several processes."""
    tree, others = layout.without_others(tree)
    counts = {half: {c: len(files) for c, files in classes.items()} for half, classes in tree.items()}
    finding = Finding(source.name, counts)
    paths = [path for classes in tree.values() for files in classes.values() for path in files]
    chosen = spread(paths, most or len(paths))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        opened = list(zip(chosen, parallel(partial(_open, layout=layout), chosen, "Reading"), strict=True))
    finding.checked = len(chosen)
    finding.notes = [*others, *(str(warning.message) for warning in caught)]
    finding.broken = [*layout.strangers(tree), *(problem for _, problem in opened if isinstance(problem, str))]
    finding.missing = layout.missing(root, tree)
    shapes = {path: shape for path, shape in opened if not isinstance(shape, str)}
    if finding.whole:
        finding.refused = _refused(layout, root, shapes)
    finding.notes += layout.notes(tree, finding.refused is None)
    if not finding.missing:
        finding.hashes = layout.hashes(root, tree)
    for each, files in spread(list(next(iter(tree.values())).items()), MOST):
        finding.samples[each] = [_read(path, layout) for path in [path for path in files if path in shapes][:SAMPLES]]
    return finding


def _refused(layout: Layout, root: Path, shapes: Mapping[Path, tuple[int, ...]]) -> str | None:
    """What `load` would say of a folder before it reads the files, or of the shapes of its samples."""
    try:
        layout.refuse(root, shapes)
    except UsageError as error:
        return str(error)
    return None


def _open(path: Path, layout: Layout) -> tuple[int, ...] | str:
    """The shape of a sample, or why its file cannot be read, in one line."""
    try:
        if path.is_dir():
            entries(path)  # a class that cannot be read says so
        if path.suffix.lower() not in layout.suffixes:
            return f"{path} does not belong here; expected only {', '.join(layout.suffixes)} files"
        return tuple(_read(path, layout).shape)
    except (UsageError, OSError) as error:
        return str(error)


def _read(path: Path, layout: Layout) -> Tensor:
    return layout.read(path)
