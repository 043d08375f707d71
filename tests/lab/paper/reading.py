"""What a page shows, read back from any of its formats."""

import json
import re
from collections.abc import Iterable, Iterator
from html.parser import HTMLParser
from typing import Any

FORMATS = ("terminal", "markdown", "html", "json")
Figure = tuple[str, str | None]  # accuracy, standard deviation, as printed


class _Text(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.text, self.hidden = "", 0

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.hidden += tag in ("style", "script")
        self.text += "\n" if tag in ("tr", "p", "br", "div", "h1", "h2", "h3", "li") else " "

    def handle_endtag(self, tag: str) -> None:
        self.hidden -= tag in ("style", "script")

    def handle_data(self, data: str) -> None:
        self.text += "" if self.hidden else data


def text_of(page: str, format: str) -> str:
    """What a reader sees, white space as it is; of JSON, every string and number."""
    if format == "json":
        return "\n".join(map(str, _leaves(json.loads(page))))
    if format == "html":
        parser = _Text()
        parser.feed(page)
        parser.close()
        return parser.text
    return page


def figures(page: str, format: str) -> list[Figure]:
    """Every accuracy with two decimals, with the deviation that follows it, in order."""
    if format == "json":
        records = [record for record in _records(json.loads(page), {}) if isinstance(record["accuracy"], float)]
        return [(f"{r['accuracy']:.2f}", None if r["std"] is None else f"{r['std']:.2f}") for r in records]
    found = re.findall(r"(?<![\d.])(\d\d\.\d\d)(?!\d)(?:\s*%)?(?:\s*±\s*(\d\.\d\d)(?!\d))?", text_of(page, format))
    return [(accuracy, std or None) for accuracy, std in found]


def in_order(expected: Iterable[Any], shown: Iterable[Any]) -> list[Any]:
    """What of `expected` does not occur in `shown` in the same order; other things may stand between."""
    rest = iter(shown)
    return [item for item in expected if not any(item == other for other in rest)]


def shows(text: str, mean: float, std: float | None = None) -> bool:
    """Whether a text holds mean ± std, given as fractions, in percent with one or two decimals."""
    for digits in (1, 2):
        number = rf"(?<![\d.]){re.escape(f'{100 * mean:.{digits}f}')}(?!\d)"
        spread = "" if std is None else rf"\s*%?\s*±\s*{re.escape(f'{100 * std:.{digits}f}')}(?!\d)"
        if re.search(number + spread, text):
            return True
    return False


def _leaves(value: Any) -> Iterator[Any]:
    if isinstance(value, dict | list):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _leaves(item)
    else:
        yield value


def _records(value: Any, around: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Every object with the fields `accuracy` and `std`, with what the objects around it say."""
    if isinstance(value, list):
        for item in value:
            yield from _records(item, around)
    elif isinstance(value, dict):
        here = around | {key: item for key, item in value.items() if not isinstance(item, dict | list)}
        if "accuracy" in value and "std" in value:
            yield here
        for item in value.values():
            yield from _records(item, here)
