"""`spikeback SUBCOMMAND`: parses, runs, and turns every mistake of a user into one line and an exit code."""

import json
import re
import shlex
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn

from jsonargparse import ArgumentParser

import spikeback
from spikeback.cli.interrupt import Interrupted, interruptible
from spikeback.cli.output import Terminal, forgiving_output, reader_left
from spikeback.errors import TrainingError, UsageError
from spikeback.files import as_path, as_text
from spikeback.values import near

CHOICES = (  # of argparse and of jsonargparse, in a message on a word that is none of them
    r"invalid choice: '(?P<word>.+?)' \(choose from (?P<names>.*)\)",
    r"Literal\[(?P<names>[^]]*)\]\. Got value: (?P<word>\S+)",
)

CHILD = re.compile(  # what jsonargparse says of a subcommand
    r"arguments are required: (?P<lacks>\w+)\."
    r"|Subcommand '(?P<refuses>\w+)' does not accept option '(?P<option>[\w.]+)'"
)


class Parser(ArgumentParser):
    """An argument parser whose errors are one line on stderr, exit code 2."""

    @property
    def children(self) -> "dict[str, Parser]":
        """The parsers of its subcommands, or of their actions."""
        return next((action.choices for action in self._actions if isinstance(action.choices, dict)), {})

    @property
    def options(self) -> list[str]:
        """Every `--name` that may be typed, those of its subcommands aside."""
        return [option for option in self._option_string_actions if option.startswith("--")]

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:  # pyright: ignore
        if found := CHILD.search(message):  # told of a subcommand, in names within the program
            child = self.children[found["lacks"] or found["refuses"]]
            child.error(f"no option '{found['option']}'" if found["option"] else child.lacking(message))
        command = self.prog.replace(" [options]", "")
        fail(f"{command}: {tidy(message)}{self.suggestion(message)} (see {command} --help)", 2)

    def lacking(self, message: str) -> str:
        """The required arguments that the message names, as they are typed."""
        lacking = set(re.findall(r"\w+\.([\w.]+)", message))
        typed = [
            max(action.option_strings, key=len, default=str(action.metavar or action.dest).upper())
            for action in self._actions if action.dest in lacking
        ]  # fmt: skip
        return f"{' and '.join(typed)} {'is' if len(typed) == 1 else 'are'} required"

    def suggestion(self, message: str) -> str:
        """The option that a misspelt one in the message comes closest to."""
        for word in re.findall(r"(?:option '|arguments: --)([\w.]+)", message):
            if hint := near(f"--{word}", self.options):
                return hint
        for pattern in CHOICES:
            if found := re.search(pattern, " ".join(message.split())):
                return near(found["word"], re.findall(r"[^\s,'\"]+", found["names"]))
        return ""


def fail(message: str, code: int) -> NoReturn:
    """One line on stderr, then exit."""
    with suppress(BrokenPipeError):  # nobody reads it, but the exit code says it too
        print(f"error: {' '.join(str(message).split())}", file=sys.stderr)
    raise SystemExit(code)


WORDS = (  # of jsonargparse -> of the command line, one after the other
    (r'^Parser key "([^"]*)"( element \d+)?: ', r"--\1\2: "),
    (r"<class '(\w+)'>", r"\1"),
    (r"Does not validate against any of the Union subtypes Subtypes: \[(.*?), NoneType\] Errors: .* Given value: ",
     r"Expected a \1 or null. Got value: "),
    (r"Expected a typing\.Literal", "expected one of "),
    (r"Expected a int", "expected a whole number (int)"),
    (r"Expected a float", "expected a number (float)"),
    (r'expected "(\w+)\.action" to be one of {(.*)}, but it was not provided\.', r"\1 needs an ACTION, one of \2"),
    (r'expected "subcommand" to be one of {(.*)}, but it was not provided\.', r"needs a SUBCOMMAND, one of \1"),
    (r"^'(\w+)'$", r"\1: a file or braces name an option that it does not have"),  # of an action, which it cannot name
    (r"Unable to load config '(.*?)' - .*", r"no file \1, and not options by name in braces either"),
)  # fmt: skip


def tidy(message: str) -> str:
    """jsonargparse's message in the words of the command line."""
    line = " ".join(message.split())
    for pattern, words in WORDS:
        line = re.sub(pattern, words, line)
    return line


def called(parser: Parser, argv: list[str]) -> Parser:
    """The parser of the subcommand, or its action, that the words call."""
    for word in argv[:2]:
        parser = parser.children.get(word, parser)
    return parser


def of_others(parser: Parser, argv: list[str], message: str) -> str:
    """What to add to a message of what all commands share where it names options that the one called lacks."""
    own, recipe = called(parser, argv).options, parser.children["fit"].options
    named = dict.fromkeys(re.findall(r"--[a-z][\w.]*", message))
    lacking = [option for option in named if option in recipe and option not in own]
    return f" ({' and '.join(lacking)}: of `spikeback fit`, not of this command)" if lacking else ""


def expanded(parser: Parser, argv: list[str]) -> list[str]:
    """The words as the parser takes them, where the subcommand has such options: names of recipes, data and files."""
    parser = called(parser, argv)
    words = with_recipe_paths(argv) if "--config" in parser.options else argv
    return with_sections(words) if "--data.name" in parser.options else words


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


def build_parser() -> tuple[Parser, dict[str, Any]]:
    """The parser and the function that runs each subcommand."""
    from spikeback.cli import bench, compare, data, diagnose, exits, fit, predict, report, sweep, tables, test, theory

    parser = Parser(prog="spikeback", description=spikeback.__doc__, version=spikeback.__version__)
    subcommands = parser.add_subcommands(dest="subcommand", metavar="SUBCOMMAND")
    runs = {}
    for module in (compare, fit, sweep, test, predict, exits, diagnose, report, tables, theory, data, bench):
        name = module.__name__.rpartition(".")[2]
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
            try:
                runs[config.subcommand](config[config.subcommand], Terminal(), shlex.join(["spikeback", *argv]))
            except UsageError as error:
                fail(f"{error}{of_others(parser, argv, str(error))}", 2)
    except UsageError as error:
        fail(str(error), 2)
    except TrainingError as error:
        fail(str(error), 1)
    except Interrupted as error:
        fail(str(error), 130)
    except BrokenPipeError:
        if not reader_left():
            fail("a process that this one wrote to has ended", 1)
    except OSError as error:
        fail(f"{error.filename or ''}: {error.strerror or error}".lstrip(": "), 1)
