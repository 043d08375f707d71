"""Studies: one recipe, varied along axes (docs/sweep.md)."""
