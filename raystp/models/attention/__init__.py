"""Attention regression: expression of whole bags of tiles, and maps."""
