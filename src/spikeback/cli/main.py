"""`spikeback SUBCOMMAND`: parses, runs, and turns every mistake of a user into one line and an exit code."""

import json
import shlex
import sys
from functools import cache, partial
from importlib import import_module
from pathlib import Path
from typing import Any

import spikeback
from spikeback.cli.interrupt import Interrupted, interruptible
from spikeback.cli.output import Terminal, forgiving_output, reader_left
from spikeback.cli.parser import Parser, called, fail, of_others
from spikeback.cli.words import as_typed
from spikeback.errors import TrainingError, UsageError
from spikeback.extensions import load
from spikeback.files import as_path, as_text
from spikeback.values import near

COMMANDS = {  # by name, in the order of --help: the module that adds its arguments and runs it
    "compare": "spikeback.cli.compare",
    "fit": "spikeback.cli.fit",
    "sweep": "spikeback.lab.sweep.command",
    "test": "spikeback.cli.test",
    "predict": "spikeback.cli.predict",
    "exits": "spikeback.lab.exits.command",
    "diagnose": "spikeback.cli.diagnose",
    "report": "spikeback.cli.report",
    "tables": "spikeback.lab.paper.command",
    "theory": "spikeback.lab.theory.command",
    "data": "spikeback.cli.data",
    "bench": "spikeback.lab.bench.command",
}


def expanded(parser: Parser, argv: list[str]) -> list[str]:
    """The words as the parser takes them, where the subcommand has such options: names of recipes, data and files."""
    parser = called(parser, argv)
    argv = with_imports(argv) if "--import" in parser.options else argv
    words = with_recipe_paths(argv) if "--config" in parser.options else argv
    return with_sections(words) if "--data.name" in parser.options else words


def with_imports(argv: list[str]) -> list[str]:
    """Import what every --import names, before other options are read that may name what is in it."""
    names, others, rest = [], [], iter(argv)
    for word in rest:
        option, equals, value = word.partition("=")
        if option != "--import" or not (name := value if equals else next(rest, "")):
            others.append(word)
            continue
        names.append(name)
        try:
            load(name)
        except UsageError as error:
            raise UsageError(as_typed(str(error), ["--import"])) from error
    return [*others, *([f"--import={json.dumps(names)}"] if names else [])]


def with_recipe_paths(argv: list[str]) -> list[str]:
    """Replace a packaged recipe's name after --config by its path; a file of that name comes first.

    `sweep` takes studies as well.

    Raises:
        UsageError: neither a file nor a packaged recipe.
    """
    from spikeback.cli.options import recipes, studies

    known = studies() | recipes() if argv[:1] == ["sweep"] else recipes()
    result: list[str] = []
    for word in argv:
        option, equals, value = word.partition("=")
        if result[-1:] == ["--config"]:
            result.append(_recipe_path(word, known))
        elif option == "--config" and equals:
            result.append(f"--config={_recipe_path(value, known)}")
        else:
            result.append(word)
    return result


def with_sections(argv: list[str]) -> list[str]:
    """Read --data NAME as --data.name NAME, and for a file of options, --model FILE, put what is in it."""
    from spikeback.cli.options import EXAMPLES, read_options

    def read(section: str, value: str) -> tuple[str, str]:
        if section[2:] not in EXAMPLES or value.startswith(("{", "-")):
            return section, value
        if as_path(value).is_file():
            return section, json.dumps(read_options(as_path(value), section, EXAMPLES[section[2:]]))
        return ("--data.name" if section == "--data" else section), value

    result: list[str] = []
    for word in argv:
        option, equals, value = word.partition("=")
        if equals:
            result.append("=".join(read(option, value)))
        else:
            result[-1:] = [*read(result[-1], word)] if result else [word]
    return result


def _recipe_path(name: str, known: dict[str, Path]) -> str:
    path = as_path(name) if as_path(name).is_file() else known.get(name)
    if path is None:
        hint = f"{near(name, known)}; recipes in the package: {', '.join(known)}"
        raise UsageError(f"--config: no file and no recipe {name!r}{hint}")
    return str(path)


@cache  # it takes ten times as long as to read the words, and keeps nothing of them
def build_parser() -> tuple[Parser, dict[str, Any]]:
    """The parser and the function that runs each subcommand."""
    parser = Parser(prog="spikeback", description=spikeback.__doc__, version=spikeback.__version__)
    subcommands = parser.add_subcommands(dest="subcommand", metavar="SUBCOMMAND")
    runs = {}
    for name, path in COMMANDS.items():
        module = import_module(path)
        child = Parser(description=module.__doc__)
        subcommands.add_subcommand(name, child, help=(module.__doc__ or "").split("\n")[0])
        module.add_arguments(child)  # may have subcommands of its own, which come after
        runs[name] = module.run
    return parser, runs


def main(argv: list[str] | None = None) -> None:
    """Entry point of the command."""
    with forgiving_output():
        _main([as_text(word, "surrogateescape") for word in (sys.argv[1:] if argv is None else argv)])


def _main(argv: list[str]) -> None:
    try:
        with interruptible():
            spikeback.tune_allocator()
            parser, runs = build_parser()
            config = parser.parse_args(expanded(parser, argv))
            typed = partial(as_typed, options={*called(parser, argv).options, *parser.children["fit"].options})
            try:
                runs[config.subcommand](config[config.subcommand], Terminal(), shlex.join(["spikeback", *argv]))
            except UsageError as error:
                line = typed(str(error))
                fail(f"{line}{of_others(parser, argv, line)}", 2)
            except TrainingError as error:
                fail(typed(str(error)), 1)
    except UsageError as error:
        fail(str(error), 2)
    except Interrupted as error:
        fail(str(error), 130)
    except BrokenPipeError:
        if not reader_left():
            fail("a process that this one wrote to has ended", 1)
    except OSError as error:
        fail(f"{error.filename or ''}: {error.strerror or error}".lstrip(": "), 1)
