"""Synthetic H&E slides with known tissue."""
