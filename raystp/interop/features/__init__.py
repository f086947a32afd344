"""Tile coordinates and vectors of other tools, one module per tool."""
