"""Results (schema 1, docs/results.md) as one self-contained page: nothing is fetched, no script runs."""

import io
import re
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml
from jinja2 import Environment, StrictUndefined
from markupsafe import Markup
from matplotlib import rc_context
from matplotlib.figure import Figure

from spikeback.files import write_atomic
from spikeback.report import findings, plots, tables
from spikeback.report.tables import Results

WIDE, NARROW, HALF = 9.6, 4.3, 4.8  # inches: two panels beside each other, a phone's width, half a page


def write_report(results: Results, path: str | Path) -> Path:
    """Write the results as one HTML file, atomically; figures are inline SVG that follow light and dark.

    Raises:
        UsageError: another schema, no finished trial, or a folder that cannot be written to.
    """
    environment = Environment(
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
    }
    template = files("spikeback.report").joinpath("template.html.j2").read_text(encoding="utf-8")
    page = environment.from_string(template).render(_content(results))
    return write_atomic(path, page.encode())


def _content(results: Results) -> dict[str, Any]:
    rows = tables.summarise(results)
    answer, _, sentence = findings.headline(results).partition(": ")
    return {
        "results": results,
        "rows": rows,
        "looks": plots.looks(results),
        "answer": answer,
        "sentence": sentence,
        "gradient": findings.gradient_sentence(results),
        "notes": findings.notes(results),
        "config": yaml.safe_dump(results["config"], sort_keys=False, allow_unicode=True),
        "trials": [trial for trials in tables.by_method(results).values() for trial in trials],
        "accuracy": [_svg(plots.accuracy_curves, results, width) for width in (WIDE, NARROW)],
        "blocks": [_svg(plots.gradient_by_block, results, width) for width in (WIDE, NARROW)],
        "weight": _svg(plots.weight_curve, results, HALF),
        "loss": _svg(plots.loss_curves, results, HALF),
    }


def _svg(draw: Callable[[Results, float], Figure], results: Results, width: float) -> Markup:
    """The figure as an inline SVG element: sized by the page, its ink the page's text colour."""
    buffer = io.StringIO()
    salt = f"{draw.__name__} {width}"  # the same page from the same results, and no id twice on a page
    with rc_context(plots.STYLE), rc_context({"svg.hashsalt": salt}):
        no_metadata = dict.fromkeys(("Creator", "Date", "Format", "Type"))
        draw(results, width).savefig(buffer, format="svg", transparent=True, metadata=no_metadata)
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :].replace(plots.INK, "currentColor")
    svg = re.sub(r'<g id="[^"]*"', "<g", svg)  # "axes_1" of every figure; nothing refers to them
    return Markup(re.sub(r' (width|height|version|xmlns|xmlns:xlink)="[^"]*"', "", svg, count=5))


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
