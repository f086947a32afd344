"""Slides to tiles: opening scans, reading squares of tissue at an exact um/px, finding tissue, placing tiles."""
