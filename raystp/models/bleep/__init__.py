"""Bleep."""
