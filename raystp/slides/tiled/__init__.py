"""Tiled TIFFs, read by their own stored tiles."""
