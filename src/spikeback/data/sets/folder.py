"""Images in folders of any names: one folder a class."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from spikeback.data.decode import IMAGES, decode, differ
from spikeback.data.images import Images, ImageSet
from spikeback.data.sets.imagenet import WNID
from spikeback.data.sets.layouts import Layout, Tree, held_out_hash, labels_of
from spikeback.data.sets.source import LoadOptions, Source, sources
from spikeback.data.split import hold_out
from spikeback.data.tree import HALVES, WHOLE, Classes, Kind, Listing, deeper, halves, like_classes, list_classes
from spikeback.errors import UsageError
from spikeback.files import as_text

TEST_FRACTION = 0.2  # of every class, where the folder brings no test split
CIFAR10 = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
CIFAR10_COUNTS = (50_000, 10_000)


@dataclass(frozen=True)
class OwnLayout(Layout):
    """The user's own folders: halves of several names, classes of any."""

    def parts(self, root: Path) -> list[str]:
        return [half if half == WHOLE else path.name for half, path in halves(root).items()]

    def notes(self, tree: Tree, taken: bool) -> list[str]:
        """What a training takes the halves for, where that is a choice."""
        if not taken or self.kind is None:
            return []
        if WHOLE in tree:
            return [f"no test {self.kind.noun}: {TEST_FRACTION:.0%} of every class will be drawn as the test split"]
        val = [half for half in tree if half.lower() in HALVES["val"]]
        return [f"{val[0]}/ will be {'held out' if len(tree) > 2 else 'the test split'}"] if val else []

    def hashes(self, root: Path, tree: Tree) -> dict[str, str]:
        labels = labels_of(tree)
        return held_out_hash(labels[hold_out(labels, TEST_FRACTION)[0]] if WHOLE in tree else labels)


class ImageLayout(OwnLayout):
    """The same of images."""

    def notes(self, tree: Tree, taken: bool) -> list[str]:
        wnids = all(re.fullmatch(WNID, each) for found in tree.values() for each in found)
        named = ["the classes are named as ImageNet's; data.name=imagenet needs them in train/ and in val/"]
        return [*(named if wnids else []), *super().notes(tree, taken)]

    def refuse(self, root: Path, shapes: Mapping[Path, tuple[int, ...]]) -> None:
        list_folder(root)
        start = next(iter(shapes))
        for path, shape in shapes.items():
            if shape[1:] != shapes[start][1:]:
                raise UsageError(differ(start, shapes[start], path, shape))


class Folder(Source):
    """A tree of images, see `load_folder`."""

    name = "folder"
    needs = "a folder with train/ and test/ or one folder a class"
    flip = None  # nobody knows what the images show
    layout = ImageLayout((), ".*", IMAGES.suffixes, kind=IMAGES)

    def open(self, root: Path, options: LoadOptions) -> ImageSet:
        return load_folder(root, options.size)


def load_folder(root: Path, size: int | None = None) -> ImageSet:
    """Read root/<half>/<class>/* of train/ and test/ or val/, or all three; or root/<class>/*, a fifth as test split.

    Of train/, val/ and test/, val/ is held out; of train/ and val/ it is the test split. Classes are the folders'
    names, sorted. Images are RGB unless every one of them is greyscale. `size` scales each until its shorter side
    has that many pixels and crops the centre; without it all must have the same size.
    Raises UsageError naming the folder or file that does not fit.
    """
    listing = list_folder(root)
    trees, division = listing.trees, divide(listing)
    images, labels = decode(division.paths, (size, size) if size else None), division.labels

    name = as_text(root.resolve().name)
    provenance, cifar = f"images from the folder {name}", _is_cifar10_jpeg(list(trees.values()))
    if cifar:
        provenance += ", of CIFAR-10's classes and size, as JPEG: not comparable with published CIFAR-10 numbers"
        if tuple(map(_count, trees.values())) == CIFAR10_COUNTS:
            name = "CIFAR-10 (JPEG)"
            provenance = "CIFAR-10 re-encoded as JPEG, not comparable with published CIFAR-10 numbers"
    provenance += division.words
    if size:
        provenance += f"; resized to {size} x {size}"
    train, test = (Images(images[part], labels[part]) for part in (division.train, division.test))
    classes, held_out = tuple(next(iter(trees.values()))), division.held_out
    return ImageSet(name, provenance, classes, train, test, symmetric=cifar, held_out=held_out, notes=listing.notes)


@dataclass(frozen=True)
class Division:
    """The files of a folder with their labels, int64 (N,), and the rows, int64, to train and to test on.

    `held_out`: the rows of `train` that val/ holds, None without it. `words`: what was done, for the provenance.
    """

    paths: list[Path]
    labels: Tensor
    train: Tensor
    test: Tensor
    held_out: Tensor | None
    words: str


def divide(listing: Listing) -> Division:
    """Divide a folder by its halves, or draw a fifth of every class as the test split."""
    trees = listing.trees
    paths = [path for tree in trees.values() for files in tree.values() for path in files]
    labels = torch.tensor([y for tree in trees.values() for y, files in enumerate(tree.values()) for _ in files])
    if WHOLE in trees:
        drawn = f"; {TEST_FRACTION:.0%} of every class drawn as the test split (seed 0)"
        return Division(paths, labels, *hold_out(labels, TEST_FRACTION), None, drawn)
    rows = dict(zip(trees, torch.arange(len(labels)).split([_count(tree) for tree in trees.values()]), strict=True))
    stand_in = listing.folders["test"].name
    words = f"; {stand_in}/ is the test split" if stand_in.lower() in HALVES["val"] else ""
    words += f"; {listing.folders['val'].name}/ is held out" if "val" in rows else ""
    train = torch.cat([rows["train"], *([rows["val"]] if "val" in rows else [])])
    return Division(paths, labels, train, rows["test"], rows.get("val"), words)


def _count(tree: Classes) -> int:
    return sum(map(len, tree.values()))


def list_folder(root: Path, kind: Kind = IMAGES) -> Listing:
    """The classes of a folder of images, or of samples of another kind. Nothing is opened.

    Raises UsageError naming the folder that does not fit.
    """
    try:
        listing = list_classes(root, kind)
    except UsageError as error:
        raise UsageError(f"{error}{_of_another_kind(root, kind)}") from None
    for name, files in listing.trees.get(WHOLE, {}).items():
        if len(files) == 1:
            one = kind.noun.removesuffix("s")
            raise UsageError(f"{root / name} holds one {one}; two are needed, one to train on and one to test")
    return listing


def _of_another_kind(root: Path, kind: Kind) -> str:
    """What to add where samples of another kind than the one that was asked for lie in folders by class."""
    if not root.is_dir() or like_classes(root, kind) or deeper(root, kind):
        return ""
    for source in sources():
        other = source.layout.kind if source.layout and source.layout.own else None
        if other and other is not kind:
            for place in [root] if like_classes(root, other) else deeper(root, other):
                return f"; it holds {other.noun}: data.name={source.name} data.root={place} takes them"
    return ""


def _is_cifar10_jpeg(trees: Sequence[dict[str, list[Path]]]) -> bool:
    """Whether these are CIFAR-10's classes and JPEG images of 32 x 32; one of each class in each half is opened."""
    if any(tuple(tree) != CIFAR10 for tree in trees):
        return False
    for path in (files[0] for tree in trees for files in tree.values()):
        try:
            with Image.open(path) as image:
                if (image.format, image.size) != ("JPEG", (32, 32)):
                    return False
        except OSError:  # `decode` has named it
            return False
    return True
