"""A diagnosis (schema 1, docs/doctor.md) as table, text, figure and page."""

from spikeback.report.doctor_page import write_diagnosis
from spikeback.report.doctor_plots import diagnosis_figure, save_diagnosis
from spikeback.report.doctor_table import DoctorTable, doctor_table, doctor_text
from spikeback.report.training_plots import branch_shares, doctor_over_time, first_layer_histogram

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
