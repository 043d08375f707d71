"""Figures, and how every one of them looks."""
