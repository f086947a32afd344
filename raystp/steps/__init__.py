"""The steps: one folder each, with its config and `run(config)`. They compose the packages and write artifacts."""

KEYWORDS = {"import": "imports"}
"""Step -> its package, where the name is a word of Python."""


def package_of(step: str) -> str:
    """Return the package of a step: `raystp.steps.<step>`."""
    return f"raystp.steps.{KEYWORDS.get(step, step)}"
