"""Scores against measured spots."""
