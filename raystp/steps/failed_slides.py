"""Which slides or sections a step tried and which failed, and whether `run.max_failed` allows these."""

from raystp.artifacts import Artifact

TRIED = "tried"
"""Key of a manifest's notes with the names that were tried, for steps whose other notes do not list the finished ones.
"""

_FINISHED = {
    "spots": "sections",
    "tile": "patients",
    "embed": "patients",
    "complete": "sections",
    "index": "slides",
    "impute": "slides",
    "predict": "slides",
    "export": "slides",
}
"""Step -> key of its notes with the names of what was finished."""


def failed_names(artifact: Artifact) -> set[str]:
    """Return the slides or sections with a row in the failures table, which may be about single tiles."""
    return {str(row["slide"]) for row in artifact.failures().to_pylist()}


def tried_names(artifact: Artifact) -> set[str]:
    """Return the names of all slides or sections that the step tried."""
    notes = artifact.manifest.notes
    finished = notes.get(TRIED, notes.get(_FINISHED.get(artifact.manifest.step, ""), ()))
    return failed_names(artifact) | {str(name) for name in finished}


def allows(max_failed: float | int, failed: int, tried: int) -> bool:
    """Return whether so many failures are allowed: by number (an int), or by share of what was tried (a float)."""
    return failed <= (max_failed * tried + 1e-9 if isinstance(max_failed, float) else max_failed)
