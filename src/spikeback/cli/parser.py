"""The parser of the command: its errors are one line, in the words of the command line."""

import re
import sys
from contextlib import suppress
from typing import NoReturn

from jsonargparse import ArgumentParser

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
