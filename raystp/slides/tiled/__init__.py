"""Tiled."""
