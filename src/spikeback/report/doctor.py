"""A diagnosis (schema 1, docs/doctor.md) as table, text, figure and page."""

from spikeback.report.doctor_table import DoctorTable, doctor_table, doctor_text
from spikeback.report.pages.doctor import write_diagnosis
from spikeback.report.plots.doctor import diagnosis_figure, save_diagnosis
from spikeback.report.plots.training import branch_shares, doctor_over_time, first_layer_histogram

__all__ = [
    "DoctorTable",
    "branch_shares",
    "diagnosis_figure",
    "doctor_over_time",
    "doctor_table",
    "doctor_text",
    "first_layer_histogram",
    "save_diagnosis",
    "write_diagnosis",
]
