"""Readers of measured sections, one file per layout on disk."""
