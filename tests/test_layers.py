"""The order of the package: every import points down the list, and no files import each other in a circle."""

import ast
from graphlib import TopologicalSorter
from pathlib import Path

import spikeback

ROOT = Path(spikeback.__file__).parent
BASE = ("errors", "version", "processors", "values", "files", "inputs", "lock", "targets", "extensions")
LAYERS = (
    *("ops", "nn", "models", "foreign", "shortcut", "losses"),  # a network, and how it is trained
    *("data", "report", "doctor", "train", "export"),
    *("cli", "lab"),  # who speaks in options, and who studies the method
)


def imports() -> dict[str, set[str]]:
    """Which modules of the package each of its modules names in an import, wherever in the file that stands."""
    files = {
        ".".join(("spikeback", *path.relative_to(ROOT).with_suffix("").parts)): path for path in ROOT.rglob("*.py")
    }
    modules = {name.removesuffix(".__init__") for name in files}
    found: dict[str, set[str]] = {}
    for name, path in files.items():
        named = found.setdefault(name.removesuffix(".__init__"), set())
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.module:
                inner = {f"{node.module}.{alias.name}" for alias in node.names} & modules
                rest = any(f"{node.module}.{alias.name}" not in modules for alias in node.names)
                named |= inner | ({node.module} & modules if rest else set())
            elif isinstance(node, ast.Import):
                named |= {alias.name for alias in node.names} & modules
    return found


def level(module: str) -> int:
    """How far up the list a module stands; the package's face and the program stand with the command."""
    room = [*module.split("."), ""][1]
    if room in BASE:
        return 0
    return 1 + LAYERS.index(room if room in LAYERS else "cli")


def test_every_import_points_down_the_list_of_rooms() -> None:
    up = {f"{a} -> {b}" for a, named in imports().items() for b in named if level(b) > level(a)}
    assert not up


def test_the_library_does_not_import_the_laboratory() -> None:
    assert not {a for a, named in imports().items() for b in named if ".lab" in b and ".lab" not in a}


def test_no_files_import_each_other_in_a_circle() -> None:
    graph = imports()
    order = [*TopologicalSorter(graph).static_order()]  # raises CycleError, which names the circle
    assert len(order) == len(graph) > 150
