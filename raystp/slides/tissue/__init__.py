"""Tissue on a slide: detection, masks, outlines as polygons, and quality."""
