"""A diagnosis (schema 1, docs/doctor.md) as table, text, figure and page: plain functions over it."""

from spikeback.report.doctor_page import write_diagnosis
from spikeback.report.doctor_plots import diagnosis_figure, save_diagnosis
from spikeback.report.doctor_table import doctor_table, doctor_text

__all__ = ["diagnosis_figure", "doctor_table", "doctor_text", "save_diagnosis", "write_diagnosis"]
