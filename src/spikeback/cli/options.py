"""Options that subcommands share."""

from importlib.resources import files
from pathlib import Path
from typing import Any

from jsonargparse import ArgumentParser

from spikeback.train import Recipe


def add_recipe(parser: ArgumentParser) -> None:
    """--config and every field of the recipe."""
    parser.add_argument("--config", action="config", help="a recipe: a YAML file, or the name of one in the package")
    parser.add_class_arguments(Recipe)


def recipe_of(config: Any) -> Recipe:
    """The recipe among parsed options."""
    return Recipe.from_dict({name: _plain(config[name]) for name in ("title", "data", "model", "branches", "train")})


def add_run(parser: ArgumentParser, default: str) -> None:
    """--out and --resume."""
    parser.add_argument("--out", type=str, help=f"folder for everything that is written (default: {default})")
    parser.add_argument("--resume", action="store_true", help="go on with what --out lacks, from the last checkpoint")


def run_folder(config: Any, suffix: str = "") -> Path:
    """--out, or runs/ and the recipe's name; without a recipe those of dataset and network."""
    if config.out:
        return Path(config.out)
    name = f"{config.data.name.replace(':', '-')}-{config.model.name}"
    if config.config:
        path = Path(str(config.config[-1]))
        packaged = {p.resolve(): recipe for recipe, p in (recipes() | studies()).items()}
        name = packaged.get(path.resolve(), path.stem).replace("/", "-")
    return Path("runs") / f"{name}{suffix}"


def recipes() -> dict[str, Path]:
    """The recipes in the package, by name: `demo`, `fashion-mnist/resnet18`, ..."""
    return _packaged("recipes")


def studies() -> dict[str, Path]:
    """The studies in the package, by name: recipes that `spikeback sweep` varies."""
    return _packaged("studies")


def _packaged(folder: str) -> dict[str, Path]:
    root = Path(str(files("spikeback") / folder))
    return {str(p.relative_to(root).with_suffix("")): p for p in sorted(root.rglob("*.yaml"))}


def _plain(value: Any) -> Any:
    return value.as_dict() if hasattr(value, "as_dict") else value
