"""Differences between models that are scored on the same spots or cases, with their uncertainty."""
