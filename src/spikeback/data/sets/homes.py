"""Where the published recordings lie, also as SpikingJelly and tonic leave them behind."""

from dataclasses import dataclass
from pathlib import Path

from spikeback.data.tree import entries
from spikeback.errors import UsageError


@dataclass(frozen=True)
class Home:
    """Where within a root the files of the dataset `name` may lie.

    Args:
        name: The dataset, as data.name calls it.
        inner: Folders within the root, in the order of preference: the original files, then SpikingJelly's arrays.
        marks: Patterns of which one is found in a folder of the dataset.
        tonic: tonic's folder for the dataset, if what lies there is packed anew and not the original.
        packed: A pattern of what lies in that folder.
    """

    name: str
    inner: tuple[str, ...]
    marks: tuple[str, ...]
    tonic: str = ""
    packed: str = ""

    def inside(self, root: Path) -> Path | None:
        """The folder at or within `root` that holds the dataset, None if none does."""
        places = (root / folder for folder in self.inner)
        return next((place for place in places if any(any(place.glob(mark)) for mark in self.marks)), None)

    def of(self, root: Path) -> Path:
        """The same, or `root` itself, of which the reader will say what it lacks.

        Raises UsageError where the files are archives that nobody has unpacked, or tonic's, with what would work.
        """
        if place := self.inside(root):
            return place
        for place in (root, root / self.tonic) if self.tonic else ():
            if any(place.glob(self.packed)):
                raise UsageError(self._of_tonic(place))
        if (root / "download").is_dir():
            raise UsageError(
                f"data.root={root} holds only what SpikingJelly has fetched, in download/ "
                f"({_some(root / 'download')}); unpack these archives into {root / 'extract'}"
            )
        return root

    def _of_tonic(self, place: Path) -> str:
        """What to say of files as tonic has packed them anew: their axes or times are not those of the original."""
        said = f"{place} holds tonic's version of {self.name}; data.name=tonic:{self.tonic} data.root="
        if place.resolve().name == self.tonic:
            return f"{said}{place.resolve().parent} reads it"
        return f"{said}PARENT reads it if the folder is called PARENT/{self.tonic}"


def _some(folder: Path) -> str:
    names = [path.name for path in entries(folder)]
    return ", ".join([*names[:2], *(["..."] if len(names) > 2 else [])]) or "empty"
