"""Where a trial goes on: its newest checkpoint that is whole."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from spikeback.errors import UsageError
from spikeback.files import remove_parts, write_atomic
from spikeback.train.checkpoint import BEST, LAST, PREVIOUS, read_checkpoint
from spikeback.train.recipe import Recipe
from spikeback.train.results import check_recipe

Tell = Callable[[str], None]


def resume_point(folder: Path, recipe: Recipe, tell: Tell | None) -> Path | None:
    """The checkpoint of a trial's folder to go on from, or None if it has no whole one: the trial starts anew.

    What is damaged stays under another name, and is told. Without `tell` nothing is touched: another process of the
    same training does that.

    Raises:
        UsageError: it was made with another recipe, or `keep_best` fails.
    """
    if tell:
        remove_parts(folder)
    missing: list[str] = []
    damaged: list[str] = []
    for path in (folder / LAST, folder / PREVIOUS):
        if not path.is_file():
            missing.append(f"{path} is missing")
            continue
        try:
            content = read_checkpoint(path)
        except UsageError:
            aside = path.with_name(f"{path.name}.damaged")
            damaged.append(f"{path} is damaged (kept as {aside.name})")
            if tell:
                path.replace(aside)
            continue
        check_recipe(content.card["recipe"], recipe, path)
        if tell:
            if lost := damaged or missing:
                tell(f"{lost[0]}: going on from {path.name}, after epoch {len(_held_out(content.record))}")
            keep_best(folder, path, tell)
        return path
    if damaged and tell:
        tell(f"{', '.join(damaged)}: the trial starts anew")
    return None


def keep_best(folder: Path, checkpoint: Path, tell: Tell) -> None:
    """See to it that `best.ckpt` is of the best epoch up to `checkpoint`, or of a later one, to be trained again.

    Raises:
        UsageError: it is not, and the only other file that could be, `checkpoint`, is not either.
    """
    best, accuracies = folder / BEST, _held_out(read_checkpoint(checkpoint).record)
    wanted = accuracies.index(max(accuracies)) + 1
    try:
        found = len(_held_out(read_checkpoint(best).record))
        if found == wanted or found > len(accuracies):
            return
        problem = f"is of epoch {found}"
    except UsageError:
        problem = "is damaged" if best.is_file() else "is missing"
    if wanted < len(accuracies):
        raise UsageError(
            f"{best} {problem}, and no other file has the best weights, those of epoch {wanted}: move {folder} "
            "elsewhere and add resume=True to train this trial anew"
        )
    write_atomic(best, checkpoint.read_bytes())
    tell(f"{best} {problem}: written anew from {checkpoint.name}, which has the best epoch, {wanted}")


def _held_out(record: dict[str, Any]) -> list[float]:
    """Accuracy after every epoch so far."""
    return record["history"]["held_out_accuracy"]
