"""Measured sections that are the same tissue, found by their counts."""
