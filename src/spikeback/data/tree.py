"""Folders of samples as people have them: one folder a class, alone or in train/, val/ and test/. Nothing is opened."""

from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from spikeback.errors import UsageError
from spikeback.files import as_text

HALVES = {"train": ("train", "training"), "val": ("val", "valid", "validation"), "test": ("test", "testing")}
WHOLE = "."  # stands for all samples where a folder is not divided
SYSTEM = (  # what operating systems and archivers leave in folders; names that begin with a dot are hidden anyway
    "thumbs.db", "ehthumbs.db", "ehthumbs_vista.db", "desktop.ini", "icon\r", "__macosx", "@eadir", "#recycle",
    "$recycle.bin", "system volume information", "lost+found",
)  # fmt: skip
DEPTH = 3  # folders that a hint looks into

Classes = dict[str, list[Path]]  # class -> its files, both sorted by name


@dataclass(frozen=True)
class Kind:
    """What the files of a class are called, in plural, and how their names end, in small letters."""

    noun: str
    suffixes: tuple[str, ...]

    def fits(self, path: Path) -> bool:
        """Whether the file's name ends as that of a sample, in small or capital letters."""
        return path.suffix.lower() in self.suffixes


@dataclass(frozen=True)
class Listing:
    """`trees`: "train", "val" and "test", or WHOLE, -> the classes; `folders`: the same -> where they lie.

    Without test/ the folder val/ is "test". `notes`: what was left out, a line each.
    """

    trees: dict[str, Classes]
    folders: dict[str, Path]
    notes: tuple[str, ...]


def visible(name: str) -> bool:
    """Whether a file or folder is neither hidden nor one of the system's."""
    return not name.startswith(".") and name.lower() not in SYSTEM


def entries(folder: Path) -> list[Path]:
    """What a folder holds, sorted by name, but for what is not `visible`. Raises UsageError if it cannot be read."""
    try:
        return sorted(path for path in folder.iterdir() if visible(path.name))
    except OSError as error:
        raise UsageError(f"{folder} cannot be read: {error.strerror or error}") from None


def folders(root: Path) -> list[Path]:
    """The visible folders in a folder."""
    return [path for path in entries(root) if path.is_dir()]


def halves(root: Path) -> dict[str, Path]:
    """Where the halves lie: "train", "val", "test", as many as there are, or WHOLE, if `root` holds the classes itself.

    One folder of such a name beside others, without folders in it, is itself a class, say of vehicles. Raises
    UsageError where two folders have the same meaning.
    """
    inside, found = folders(root), {}
    for half, names in HALVES.items():
        for path in (path for path in inside if path.name.lower() in names):
            if half in found:
                raise UsageError(f"{found[half]} and {path} mean the same; bring them together, or move one elsewhere")
            found[half] = path
    divided = len(found) > 1 or len(inside) == len(found) or any(map(folders, found.values()))
    return found if found and divided else {WHOLE: root}


def list_classes(root: Path, kind: Kind) -> Listing:
    """The classes of a folder and their files. Raises UsageError naming the folder that does not fit."""
    if not root.is_dir():
        raise UsageError(f"data.root={root} is not a folder; expected train/<class>/ and test/<class>/, or <class>/")
    parts, trees, left = _complete(root, halves(root)), {}, []
    for half, part in parts.items():
        trees[half], others = _classes(root, part, kind)
        left += others
    first, *others = trees
    for other in others:
        if odd := sorted(trees[first].keys() ^ trees[other].keys()):
            where = parts[first if odd[0] in trees[first] else other].name
            raise UsageError(
                f"{parts[first]} and {parts[other]} must have the same class folders; '{odd[0]}' is in only one of "
                f"them, {where}"
            )
    if len(trees[first]) == 1:
        only = next(iter(trees[first]))
        raise UsageError(
            f"{parts[first]} holds one class, '{only}'; a network needs two at least to tell apart, a folder for each"
        )
    return Listing(trees, parts, tuple(left_out(left, kind)))


def left_out(files: Iterable[Path], kind: Kind) -> list[str]:
    """What to say of files that are not read: a line for those of another kind, one for samples beside the classes, one
    for links to folders that are not followed.
    """
    beside: list[Path] = []
    others: list[Path] = []
    circles: list[Path] = []
    for path in files:
        (circles if path.is_dir() else beside if kind.fits(path) else others).append(path)
    reasons = {
        f"the name ends in none of {', '.join(kind.suffixes)}": others,
        "beside the class folders": beside,
        "a link back to a folder that it lies in": circles,
    }
    return [_left(paths, why) for why, paths in reasons.items() if paths]


def _left(paths: list[Path], why: str) -> str:
    return f"{len(paths):,} left out ({why}): {paths[0]}{' and others' if len(paths) > 1 else ''}"


def _complete(root: Path, parts: dict[str, Path]) -> dict[str, Path]:
    """The same if there are images to train on and to test on, val/ standing in for test/."""
    if WHOLE in parts:
        return parts
    if "train" not in parts or len(parts) == 1:
        names = " and ".join(f"{path.name}/" for path in parts.values())
        alone = next(iter(parts.values()))
        advice = f"; data.root={alone} takes a fifth of every class as test split" if folders(alone) else ""
        raise UsageError(f"data.root={root} has {names} alone; expected both train/ and test/{advice}")
    return parts if "test" in parts else {"train": parts["train"], "test": parts["val"]}


def _classes(root: Path, part: Path, kind: Kind) -> tuple[Classes, list[Path]]:
    """The classes in a folder, and what lies beside their samples or, of their kind, beside them."""
    inside = entries(part)
    loose = [path for path in inside if kind.fits(path) and not path.is_dir()]
    tree: Classes = {}
    left = loose[:]
    for folder in (path for path in inside if path.is_dir()):
        held = entries(folder)
        below = [path for path in held if path.is_dir()]
        files = [path for path in held if kind.fits(path) and path not in below]
        if below and not files:
            raise UsageError(f"{folder} holds folders, not {kind.noun}{_hint(deeper(root, kind))}")
        if below:
            raise UsageError(f"{below[0]} is a folder within a class; {kind.noun} must lie in {folder} itself")
        if not files:
            raise UsageError(_empty(folder, held, kind))
        tree[as_text(folder.name)] = files
        left += [path for path in held if not kind.fits(path)]
    if not tree:
        hint = _hint(_beside(root, part, kind) if loose else deeper(root, kind))
        what = f"{kind.noun} itself, and no class folders" if loose else "no class folders"
        raise UsageError(f"{part} holds {what}; expected {part}/<class>/ with {kind.noun} in each{hint}")
    return tree, left


def _empty(folder: Path, held: list[Path], kind: Kind) -> str:
    if not held:
        return f"{folder} is a class without {kind.noun}; add some, or move the folder elsewhere"
    found = ", ".join(sorted({path.suffix or path.name for path in held})[:3])
    return (
        f"{folder} is a class without {kind.noun} ({', '.join(kind.suffixes)}), it holds {found}; convert these, or "
        "move the folder elsewhere"
    )


def _hint(places: list[Path]) -> str:
    return f"; did you mean data.root={' or '.join(map(str, places[:3]))}?" if places else ""


def deeper(root: Path, kind: Kind) -> list[Path]:
    """The folders that hold classes, of the first depth below `root` where there are any."""
    level = [root]
    for _ in range(DEPTH):
        level = [path for folder in level for path in tried(folder, root)]
        if found := [folder for folder in level if like_classes(folder, kind)]:
            return found
    return []


def _beside(root: Path, part: Path, kind: Kind) -> list[Path]:
    """The folder of classes that may be meant, not this one of samples: another half, or what it is a class of."""
    if part != root:
        return [half for half in halves(root).values() if like_classes(half, kind)]
    above = root.resolve().parent
    if any(above.name.lower() in names for names in HALVES.values()) and len(tried(above.parent, above.parent)) > 1:
        above = above.parent
    return [above] if like_classes(above, kind) else []


def like_classes(folder: Path, kind: Kind) -> bool:
    """Whether a folder holds two class folders with samples, or halves with class folders."""
    with suppress(UsageError):
        parts = halves(folder)
        held = [sum(_any_sample(each, kind) for each in folders(part)) for part in parts.values()]
        return min(held) >= 2 and (WHOLE in parts or len(parts) > 1)
    return False


def _any_sample(folder: Path, kind: Kind) -> bool:
    return any(kind.fits(path) for path in entries(folder))


def tried(folder: Path, root: Path) -> list[Path]:
    """Its folders; none if it cannot be read, or is a link other than `root`, which may lead round in circles."""
    with suppress(UsageError):
        return [] if folder.is_symlink() and folder != root else folders(folder)
    return []
