"""Readers of whole slides: OpenSlide and flat images, with what they share (headers, scale, resampling)."""
