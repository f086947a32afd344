"""Command `run`: the pipeline from a few flags."""
