"""Results (schema 1, docs/results.md) as one self-contained page."""

from pathlib import Path
from typing import Any

import yaml

from spikeback.report import findings, tables
from spikeback.report.pages.page import HALF, NARROW, WIDE, inline_svg, write_page
from spikeback.report.plots import curves
from spikeback.report.plots.training import training_figures
from spikeback.report.tables import Results


def write_report(results: Results, path: str | Path) -> Path:
    """Write the results as one HTML file, atomically; figures are inline SVG that follow light and dark.

    Raises:
        UsageError: another schema, no finished trial, or a folder that cannot be written to.
    """
    return write_page("report.html.j2", _content(results), path)


def _content(results: Results) -> dict[str, Any]:
    rows = tables.summarise(results)
    answer, _, sentence = findings.headline(results).partition(": ")
    return {
        "results": results,
        "rows": rows,
        "looks": curves.looks(results),
        "answer": answer,
        "sentence": sentence,
        "gradient": findings.gradient_sentence(results),
        "notes": findings.notes(results),
        "config": yaml.safe_dump(results["config"], sort_keys=False, allow_unicode=True),
        "trials": [trial for trials in tables.by_method(results).values() for trial in trials],
        "accuracy": [inline_svg(curves.accuracy_curves, results, width) for width in (WIDE, NARROW)],
        "blocks": [inline_svg(curves.gradient_by_block, results, width) for width in (WIDE, NARROW)],
        "weight": inline_svg(curves.weight_curve, results, HALF),
        "loss": inline_svg(curves.loss_curves, results, HALF),
        "doctor": {
            name: [inline_svg(draw, results, width) for width in (WIDE, NARROW)]
            for name, draw in training_figures(results).items()
        },
    }
