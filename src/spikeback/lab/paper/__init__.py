"""The paper's tables beside what was measured here (docs/tables.md)."""
