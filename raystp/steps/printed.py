"""What a command prints that writes no artifact and whose standard output is data for a file or another program."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Printed:
    """Text for standard output, which has nothing else: no summary and no JSON line follow."""

    text: str
    failures: int = 0
    """Rows with a problem; above `run.max_failed` the exit status is 3."""
    tried: int = 0
    """All rows, of which `run.max_failed` may be a share."""
    has_error: bool = False
    """Whether the text names an error; the exit status is then 1."""
