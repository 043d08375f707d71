"""Branches kept at inference: early exits, their accuracy and what they cost (docs/exits.md)."""
