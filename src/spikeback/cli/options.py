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


def add_run(parser: ArgumentParser, default: str) -> None:
    """--out and --resume."""
    parser.add_argument("--out", type=str, help=f"folder for everything that is written (default: {default})")
    parser.add_argument("--resume", action="store_true", help="go on with what --out lacks, from the last checkpoint")


def run_folder(config: Any, suffix: str = "") -> Path:
    """--out, or runs/ and the recipe's file name."""
    recipe = Path(str(config.config[-1])).stem if config.config else "default"
    return Path(config.out) if config.out else Path("runs") / f"{recipe}{suffix}"


def _plain(value: Any) -> Any:
    return value.as_dict() if hasattr(value, "as_dict") else value
