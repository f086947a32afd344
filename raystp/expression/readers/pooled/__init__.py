"""Squares that are pooled while bins, cells or transcripts are read: memory depends on the squares alone."""
