"""Measured sections to expression: readers per layout, one schema, gene panels, normalisation, splits."""
