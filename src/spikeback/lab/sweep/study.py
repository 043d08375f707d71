"""A study: a recipe, and the axes along which it varies. Their points are crossed; every combination is a cell."""

import re
from itertools import product
from pathlib import Path
from typing import Any, NoReturn

from spikeback.cli.options import add_recipe, recipe_of
from spikeback.cli.parser import Parser, tidy
from spikeback.errors import UsageError
from spikeback.files import as_path
from spikeback.train import Method, Recipe
from spikeback.train.cell import Cell
from spikeback.train.results import flat
from spikeback.train.trials import trials_of
from spikeback.values import instead, near

Axes = dict[str, dict[str, dict[str, Any]]]  # axis -> point -> dotted option -> value


def cells_of(base: Recipe, vary: Any, methods: list[str], seeds: list[int], out: Path) -> list[Cell]:
    """Every combination of the points of `vary` (docs/sweep.md), the first axis varying slowest.

    A cell has one thread unless the recipe says otherwise, so that its numbers do not depend on how many run at a time.

    Raises:
        UsageError: names the key of the study that is wrong, and the choices.
    """
    axes = axes_of(vary)
    trials = [(method.name, seed) for method, seed in trials_of([Method.from_text(text) for text in methods], seeds)]
    cells: list[Cell] = []
    for names in product(*axes.values()):
        point = dict(zip(axes, names, strict=True))
        cell = "-".join(map(_slug, names))
        folder = as_path(out / cell)
        options: dict[str, Any] = {}
        for axis, name in point.items():
            if both := options.keys() & axes[axis][name].keys():
                raise UsageError(f"vary.{axis}.{name}: {min(both)} is set by another axis as well; keep it in one")
            options |= axes[axis][name]
        if folder in (other.folder for other in cells):
            raise UsageError(f"vary: two cells would have the folder {cell!r}; give their points other names")
        where = "vary." + " x ".join(f"{axis}.{name}" for axis, name in point.items())
        recipe = _varied(base, {"title": f"{base.title}: {cell}", **options}, where)
        recipe.train.threads = recipe.train.threads or 1
        cells.append(Cell(folder, point, options, recipe, trials))
    return cells


def axes_of(vary: Any) -> Axes:
    """Both spellings of an axis, `option: [values]` and `name: {point: {option: value}}`, as the latter."""
    known = sorted(flat(Recipe().as_dict()))
    if not isinstance(vary, dict) or not vary:
        raise UsageError("vary: needs at least one axis, e.g. vary='{train.lr: [0.1, 0.3]}'")
    axes: Axes = {}
    for axis, points in vary.items():
        if isinstance(points, list):
            _check_option(f"vary.{axis}", axis, known)
            points = {str(value): {axis: value} for value in points}
        if not isinstance(points, dict) or not all(isinstance(options, dict) for options in points.values()):
            raise UsageError(
                f"vary.{axis}: must be a list of values, or options by name of the point: {{slow: {{train.lr: 0.1}}}}"
            )
        if not points:
            raise UsageError(f"vary.{axis}: has no point")
        for name, options in points.items():
            for option in options:
                _check_option(f"vary.{axis}.{name}", option, known)
        axes[str(axis)] = {str(name): options for name, options in points.items()}
    return axes


def _check_option(where: str, option: str, known: list[str]) -> None:
    if option not in known:
        raise UsageError(f"{where}: no option {option!r}{near(option, known) or instead(option, known)}")


def _varied(base: Recipe, options: dict[str, Any], where: str) -> Recipe:
    values = base.as_dict()
    for option, value in options.items():
        *groups, last = option.split(".")
        group = values
        for name in groups:
            group = group[name]
        group[last] = value
    parser = _Parser()
    add_recipe(parser)
    try:
        return recipe_of(parser.parse_object(values))
    except UsageError as error:
        raise UsageError(f"{where}: {error}") from error


class _Parser(Parser):
    """Checks types as the command line does, but leaves it to others to say whose mistake it is."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        raise UsageError(tidy(message))


def _slug(name: str) -> str:
    return re.sub(r"[^\w.]+", "-", name).strip("-.") or "-"
