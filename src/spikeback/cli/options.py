"""Options that subcommands share."""

from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml
from jsonargparse import (
    ActionConfigFile,  # pyright: ignore[reportPrivateImportUsage] - in its documentation
    ArgumentParser,
    get_loader,
)

from spikeback.errors import UsageError
from spikeback.files import as_path, read_text
from spikeback.train import Recipe
from spikeback.train.results import flat
from spikeback.values import near

SECTIONS = ("data", "model", "branches", "train")
EXAMPLES = {  # what a file of the options of a section may hold
    "data": "batch_size: 64", "data.events": "time_steps: 10", "model": "width: 16", "branches": "read: current",
    "train": "epochs: 5",
}  # fmt: skip
TRIALS = ("methods", "seeds")  # a recipe may say which; a subcommand without these options takes no notice


class RecipeFile(ActionConfigFile):
    """--config FILE: the options in the file, and those of its bases that it leaves as they are."""

    @staticmethod
    def apply_config(parser: Any, cfg: Any, dest: str, value: Any) -> None:
        known = parser.get_defaults()
        options = {key: v for key, v in read_recipe(value).items() if key in known or key not in TRIALS}
        ActionConfigFile.apply_config(parser, cfg, dest, yaml.safe_dump(options, sort_keys=False))
        cfg[dest][-1] = str(value)


def add_recipe(parser: ArgumentParser) -> None:
    """--config and every field of the recipe."""
    parser.add_argument("--config", action=RecipeFile, help="a recipe: a YAML file, or the name of one in the package")
    parser.add_class_arguments(Recipe, skip={"imports"})
    add_import(parser)


def add_import(parser: ArgumentParser) -> None:
    """--import, which `main` reads before all others."""
    parser.add_argument(
        "--import", type=list[str], default=[], metavar="MODULE",
        help="a Python file or module that adds a neuron, loss, ... of yours; may be given several times",
    )  # fmt: skip


def add_trained(parser: ArgumentParser) -> None:
    """RUN, --checkpoint and --import."""
    parser.add_argument(
        "run", type=str, metavar="RUN",
        help="a trial's folder, a run's folder with one trial, or a checkpoint file",
    )  # fmt: skip
    parser.add_argument("--checkpoint", choices=["best", "last"], default="best", help="which checkpoint of the trial")
    add_import(parser)


def recipe_of(config: Any) -> Recipe:
    """The recipe among parsed options."""
    values = {name: _plain(config[name]) for name in ("title", *SECTIONS, "import")}
    if not values["import"] and config.get("resume") and config.out and (as_path(config.out) / "config.yaml").is_file():
        values["import"] = read_recipe(as_path(config.out) / "config.yaml").get("import", [])  # so that it can be named
    return Recipe.from_dict(values)


def recipe_options() -> list[str]:
    """Every option of a recipe, as it is typed."""
    return [f"--{name}" for name in flat(Recipe().as_dict())]


def add_run(parser: ArgumentParser, default: str) -> None:
    """--out and --resume."""
    parser.add_argument("--out", type=str, help=f"folder for everything that is written (default: {default})")
    parser.add_argument("--resume", action="store_true", help="go on with what --out lacks, from the last checkpoint")


def run_folder(config: Any, suffix: str = "") -> Path:
    """--out, or runs/ and the recipe's name; without a recipe those of dataset and network."""
    if config.out:
        return as_path(config.out)
    name = f"{config.data.name.replace(':', '-')}-{config.model.name}"
    if config.config:
        path = as_path(str(config.config[-1]))
        packaged = {p.resolve(): recipe for recipe, p in (recipes() | studies()).items()}
        name = packaged.get(path.resolve(), path.stem).replace("/", "-")
    return Path("runs") / f"{name}{suffix}"


def read_recipe(path: str | Path) -> dict[str, Any]:
    """The options in a file, without `base`; those it does not set are its base's, and so on along the chain.

    `base` is a path relative to the file, or the name of a recipe or study in the package. Sections merge key by key.

    Raises:
        UsageError: names the file that is not YAML, holds something else than options, or has no such base.
    """
    options: dict[str, Any] = {}
    chain: list[Path] = []
    following: Path | None = as_path(path)
    while following:
        if following.resolve() in chain:
            raise UsageError(f"--config: {chain[-1]}: base: {following} is a file that builds on this one")
        chain.append(following.resolve())
        content = _read(following)
        following = _base_path(following, content.pop("base")) if "base" in content else None
        options = merged(content, options)
    return options


def packaged_recipe(name: str) -> Recipe:
    """A recipe in the package, what it leaves open at its default."""
    return Recipe.from_dict(merged(Recipe().as_dict(), read_recipe(recipes()[name])))


def merged(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    """Nested options: those above replace those below, key by key."""
    both = below.keys() & above.keys()
    nested = {key for key in both if isinstance(below[key], dict) and isinstance(above[key], dict)}
    return below | {key: merged(below[key], value) if key in nested else value for key, value in above.items()}


def read_options(path: Path, option: str, example: str) -> dict[str, Any]:
    """The options in a YAML file that `option` names. Raises UsageError that names both."""
    try:
        # jsonargparse's loader reads 1e-4 as a number, and a lone "model:" as text but for the comment
        content = get_loader("yaml")(f"{read_text(path)}\n#")
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UsageError(f"{option}: {path} is not YAML: {error}") from error
    if not isinstance(content, dict):
        raise UsageError(f"{option}: {path} must hold options by name, e.g. '{example}'")
    return _nested(content)


def _read(path: Path) -> dict[str, Any]:
    content = read_options(path, "--config", "train: {epochs: 5}")
    for section in SECTIONS:
        if not isinstance(content.get(section, {}), dict):
            raise UsageError(f"--config: {path}: {section} must hold options by name, not {content[section]!r}")
    return content


def _nested(options: dict[Any, Any]) -> dict[str, Any]:
    """Options spelt `train.lr: 0.1` as `train: {lr: 0.1}`, so that they merge; those to vary stay as they are."""
    result: dict[str, Any] = {}
    for key, value in options.items():
        first, dot, rest = str(key).partition(".")
        value = {rest: value} if dot else value
        result = merged(result, {first: _nested(value) if isinstance(value, dict) and first != "vary" else value})
    return result


def _base_path(path: Path, base: Any) -> Path:
    """The file that `base` in the file `path` names."""
    if not isinstance(base, str):
        raise UsageError(f"--config: {path}: base must be one file or the name of a packaged recipe, not {base!r}")
    beside = path.parent / as_path(base)
    known = _packaged("studies") | _packaged("recipes")
    if beside.is_file() or base in known:
        return beside if beside.is_file() else known[base]
    hint = f"{near(base, known)}; recipes in the package: {', '.join(known)}"
    raise UsageError(f"--config: {path}: base: no file {beside} and no recipe {base!r}{hint}")


def recipes() -> dict[str, Path]:
    """The recipes in the package, by name: `demo`, `cifar10/resnet18-t2`, ... (not the bases they share)."""
    return {name: path for name, path in _packaged("recipes").items() if path.stem != "base"}


def studies() -> dict[str, Path]:
    """The studies in the package, by name: recipes that `spikeback sweep` varies."""
    return _packaged("studies")


def _packaged(folder: str) -> dict[str, Path]:
    root = Path(str(files("spikeback") / folder))
    return {str(p.relative_to(root).with_suffix("")): p for p in sorted(root.rglob("*.yaml"))}


def _plain(value: Any) -> Any:
    return value.as_dict() if hasattr(value, "as_dict") else value
