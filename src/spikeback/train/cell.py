"""A cell: a run of `spikeback compare` that is planned, and what of it is done."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from spikeback.files import as_text
from spikeback.train.recipe import Recipe
from spikeback.train.results import check_recipe, read_results


@dataclass(frozen=True)
class Cell:
    """One combination: a plain run of `spikeback compare` in a folder of its own.

    Args:
        folder: of the run.
        point: the name of the point on every axis.
        options: what the points set, by dotted name.
        recipe: the study's recipe with these options.
        trials: (method, seed) of every trial, by name.
    """

    folder: Path
    point: dict[str, str]
    options: dict[str, Any]
    recipe: Recipe
    trials: list[tuple[str, int]]

    @property
    def name(self) -> str:
        return as_text(self.folder.name)

    def results(self) -> dict[str, Any] | None:
        """What is in the folder's results.json; None where there is none. Raises UsageError if of another recipe."""
        path = self.folder / "results.json"
        if not path.is_file():
            return None
        results = read_results(path)
        check_recipe(results["config"], self.recipe, self.folder)
        return results

    def missing(self) -> list[tuple[str, int]]:
        """The trials that are yet to be finished."""
        results = self.results()
        finished = {(t["method"], t["seed"]) for t in results["trials"]} if results else set()
        return [trial for trial in self.trials if trial not in finished]
