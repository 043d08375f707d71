"""A diagnosis (schema 1, docs/doctor.md) as one self-contained page: verdict, remedies, figure, tables."""

import math
from pathlib import Path
from typing import Any

from spikeback.report import tables
from spikeback.report.doctor_table import Facts, relative, share, short, two
from spikeback.report.pages.page import NARROW, WIDE, inline_svg, write_page
from spikeback.report.plots.doctor import KINDS, diagnosis_figure
from spikeback.report.plots.style import INK, MARKERS

FIGURES = {  # of a block, after its gradient: header, how it is written, in columns that belong together
    "gain": ("gain", short),
    "predicted": ("gain, theory", short),
    "relu": ("gain, ReLU", short),
    "active": ("active", share),
    "rate": ("firing rate", share),
    "silent": ("silent", share),
    "saturated": ("always firing", share),
    "fidelity": ("fidelity", two),
    "unrelated": ("unrelated", two),
    "coherence": ("coherence", two),
    "descent": ("descent", short),
    "participation": ("directions", short),
    "share": ("residual share", share),
}
LAYER = {
    "threshold": ("threshold", short),
    "current_mean": ("current, mean", short),
    "current_std": ("current, spread", short),
    "rate": ("firing rate", share),
    "silent": ("silent", share),
    "saturated": ("always firing", share),
    "active": ("active", share),
    "derivative": ("surrogate, mean", short),
    "second_moment": ("surrogate, mean square", short),
}
WEIGHT = {
    "norm": ("norm", short),
    "gradient": ("gradient", tables.scientific),
    "relative": ("gradient / norm", tables.scientific),
    "update": ("update / norm", tables.scientific),
}


def write_diagnosis(facts: Facts, path: str | Path) -> Path:
    """Write a diagnosis as one HTML file, atomically; the figure is inline SVG that follows light and dark.

    Raises:
        UsageError: a folder that cannot be written to.
    """
    rows = facts["blocks"]
    ratios = ["∞" if ratio == math.inf else tables.scientific(ratio) for ratio in relative(rows)]
    verdict = facts["verdict"]
    cause, _, reason = verdict["cause"].partition(": ")
    content = {
        "facts": facts,
        "verdict": verdict,
        "looks": {kind: (_page_colour(colour), MARKERS[marker]) for kind, (colour, marker) in KINDS.items()},
        "cause": cause if reason else "",
        "reason": reason or cause,
        "blocks": _table(rows, FIGURES, {"gradient, last = 1": ratios}),
        "layers": _table(facts["layers"], LAYER),
        "weights": _table(facts["weights"], WEIGHT),
        "kinds": [row.get("kind") for row in rows],
        "drawings": [inline_svg(diagnosis_figure, facts, width) for width in (WIDE, NARROW)],
    }
    return write_page("doctor.html.j2", content, path)


def _table(rows: list[dict[str, Any]], figures: dict[str, Any], first: dict[str, list[str]] | None = None) -> Any:
    """Headers and rows of text; the columns of what was measured, after the name."""
    columns = dict(first or {})
    for name, (header, write) in figures.items():
        if any(row.get(name) is not None for row in rows):
            columns[header] = [write(row.get(name)).replace("-", "−") for row in rows]
    return {"headers": list(columns), "rows": list(zip((row["name"] for row in rows), *columns.values(), strict=True))}


def _page_colour(colour: str) -> str:
    return "currentColor" if colour == INK else colour
