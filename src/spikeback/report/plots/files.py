"""The figures of results as files."""

from pathlib import Path

from spikeback.report.plots import curves
from spikeback.report.plots.style import save
from spikeback.report.plots.training import training_figures
from spikeback.report.tables import Results, check

WIDTH = 8.0  # inches


def save_plots(results: Results, folder: str | Path) -> list[Path]:
    """Write every figure into `folder`, each atomically: accuracy, gradient, weight and loss as PNG.

    What the doctor saw, where it was asked, as PNG and SVG.

    Raises:
        UsageError: another schema, no finished trial, or a folder that cannot be written to.
    """
    check(results)
    figures = {
        "accuracy": curves.accuracy_curves(results),
        "gradient": curves.gradient_by_block(results),
        "weight": curves.weight_curve(results),
        "loss": curves.loss_curves(results),
    }
    doctor = {name: draw(results, WIDTH) for name, draw in training_figures(results).items()}
    paths = [path for name, figure in figures.items() for path in save(figure, folder, name, ("png",))]
    return paths + [path for name, figure in doctor.items() for path in save(figure, folder, name)]
