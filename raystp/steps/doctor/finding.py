"""A finding of the doctor, and how a check becomes findings: an exception of any kind is an error with its reason."""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Literal

from raystp.errors import failure_reason

State = Literal["ok", "warning", "error"]


@dataclass(frozen=True)
class Finding:
    """One line of the report."""

    name: str
    state: State
    text: str
    next: str = ""
    """What to do, where the state is not ok."""

    def line(self) -> str:
        """Return the finding for a person."""
        advice = f": {self.next}" if self.next else ""
        return f"{self.state:<8} {self.name:<14} {self.text}{advice}"

    def values(self) -> dict[str, str]:
        """Return the finding as JSON values."""
        return asdict(self)


def findings_of(name: str, check: Callable[[], list[Finding]], advice: str) -> list[Finding]:
    """Return the findings of a check. An exception is an error; `advice` is the next command."""
    try:
        return check()
    except Exception as error:  # noqa: BLE001 -- one check's fault does not end the others
        return [Finding(name, "error", failure_reason(error), advice)]
