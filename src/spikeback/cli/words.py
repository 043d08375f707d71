"""Messages of the library in the words of the command line.

Below the command an argument is named as in Python: `data.root=photos`, `train.lr`, `out=...`. This is the only place
that knows how it is typed: `--data.root photos`, `--train.lr`, `--out`.
"""

import re
from collections.abc import Collection

WORD = r"[a-z_]\w*"
START = r"(?<![\w.\-/'\"{])"
ARGUMENT = re.compile(
    rf"{START}(?P<name>{WORD}(?:\.{WORD})+)(?P<value>=\.\.\.|=True\b|=False\b|=|)"  # its dot tells that it is one
    rf"|{START}(?P<plain>{WORD})(?P<given>=\.\.\.|=True\b|=)"  # a plain word is one where it has a value,
    rf"|^(?P<head>{WORD})(?=: )"  # and where it is what the whole message is about
)
FLAGS = ("--resume",)  # that are typed without a value
VALUES = {"=": " ", "=...": "", "=True": " true", "=False": " false", "": ""}


def as_typed(message: str, options: Collection[str]) -> str:
    """The message with its arguments as they are typed, those that are `options`, e.g. "--data.root"."""

    def typed(found: re.Match[str]) -> str:
        option = f"--{found['name'] or found['plain'] or found['head']}"
        if option not in options:
            return found[0]
        return option if option in FLAGS else option + VALUES[found["value"] or found["given"] or ""]

    return ARGUMENT.sub(typed, message)
