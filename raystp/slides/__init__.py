"""Slides: open and read them, place tiles on them, detect tissue, and draw synthetic ones."""
