"""Self-contained pages: templates of this folder, figures as inline SVG; nothing is fetched, no script runs."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from matplotlib.figure import Figure

from spikeback.files import write_atomic
from spikeback.report import tables
from spikeback.report.plots.style import INK, svg

WIDE, NARROW, HALF = 9.6, 4.3, 4.8  # inches: two panels beside each other, a phone's width, half a page


def write_page(template: str, content: dict[str, Any], path: str | Path) -> Path:
    """Fill in a template and write it atomically.

    Raises:
        UsageError: a folder that cannot be written to.
    """
    return write_atomic(path, render_page(template, content))


def render_page(template: str, content: dict[str, Any], package: str = "spikeback.report.pages") -> str:
    """Fill in a template that lies in `package`, escaping what comes from outside."""
    environment = Environment(
        loader=ChoiceLoader([PackageLoader(package, ""), PackageLoader("spikeback.report.pages", "")]),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=lambda value: tables.MISSING if value is None else value,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "percent": tables.percent,
        "scientific": tables.scientific,
        "count": tables.count,
        "rate": tables.rate,
        "seconds": tables.seconds,
        "duration": duration,
        "unbroken": unbroken,
        "readable": readable,
    }
    return environment.get_template(template).render(content)


def inline_svg(draw: Callable[[Any, float], Figure], data: Any, width: float) -> Markup:
    """The figure as an inline SVG element: sized by the page, its ink the page's text colour."""
    salt = (
        f"{getattr(draw, '__name__', 'figure')} {width}"  # the same page from the same data, and no id twice on a page
    )
    text = svg(draw(data, width), salt, transparent=True)
    text = text[text.index("<svg") :].replace(INK, "currentColor")
    text = re.sub(r'(<g[^>]*) id="[^"]*"', r"\1", text)  # "axes_1" of every figure; nothing refers to them
    return Markup(re.sub(r' (width|height|version|xmlns|xmlns:xlink)="[^"]*"', "", text, count=5))


def duration(value: float) -> str:
    """Seconds as "42 s", "9 min 12 s" or "3 h 5 min"."""
    minutes, rest = divmod(round(value), 60)
    if minutes >= 60:
        return f"{minutes // 60} h {minutes % 60} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def unbroken(text: str) -> str:
    """No line break between a number and its sign, nor within a range."""
    text = re.sub(r"(?<=\d)–(?=\d)", "–\N{WORD JOINER}", text)
    return re.sub(r" (?=[%×±])|(?<=[×±]) ", "\N{NO-BREAK SPACE}", text)


def readable(text: str) -> str:
    """6.0e-04 within a text as 6 × 10⁻⁴."""
    return re.sub(r"\d(\.\d+)?e[+-]?\d+", lambda found: tables.scientific(float(found[0])), text)
