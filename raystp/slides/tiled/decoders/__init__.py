"""Decoders of single stored tiles, one per codec."""
