"""Losses: pure functions of logits (T, B, K) and labels (B,)."""
