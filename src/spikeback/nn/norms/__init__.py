"""Norms, one file each."""
