"""Results (schema 1, docs/results.md) become tables, plots and one HTML page: plain functions over the dictionary."""

from spikeback.report.findings import headline, verdict
from spikeback.report.pages.results import write_report
from spikeback.report.plots.curves import accuracy_curves, gradient_by_block, loss_curves, weight_curve
from spikeback.report.plots.files import save_plots
from spikeback.report.tables import console_table, markdown, summarise, write_csv

__all__ = [
    "accuracy_curves",
    "console_table",
    "gradient_by_block",
    "headline",
    "loss_curves",
    "markdown",
    "save_plots",
    "summarise",
    "verdict",
    "weight_curve",
    "write_csv",
    "write_report",
]
