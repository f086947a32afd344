"""Evaluations as papers did them: plain functions on arrays, and one record per protocol (`registry.PUBLISHED`)."""
