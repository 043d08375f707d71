"""Datasets, one file each with all that is known of it."""
