"""Options that subcommands share."""

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


def run_folder(config: Any) -> Path:
    """--out, or runs/<title>."""
    return Path(config.out) if config.out else Path("runs") / config.title.replace(" ", "-").lower()


def _plain(value: Any) -> Any:
    return value.as_dict() if hasattr(value, "as_dict") else value
