"""Options and figures of the GPU benchmark: each figure is printed as it is measured, and kept for the JSON."""

import json
import sys
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch


@dataclass(frozen=True)
class Options:
    """What every section is given."""

    device: str
    quick: bool
    """Sizes for a CPU: the code runs, the figures mean nothing."""
    compiler: str | None
    """Backend of torch.compile; None leaves compiled runs out."""
    slide: str | None = None
    """An SVS; None writes one."""

    @property
    def on_cuda(self) -> bool:
        """Whether the device is a CUDA device."""
        return torch.device(self.device).type == "cuda"


@dataclass(frozen=True)
class Figure:
    """One measured value, or, without a value, the reason that there is none."""

    section: str
    what: str
    value: float | None
    unit: str


@dataclass
class Figures:
    """The figures of a section; the file is written again after each, so that a crash loses none."""

    section: str
    file: Path
    found: list[Figure] = field(default_factory=list)

    def add(self, what: str, value: float, unit: str) -> None:
        """Print and keep a value."""
        self._keep(Figure(self.section, what, value, unit), f"  {what:<62}{value:>12,.4g} {unit}")

    def skip(self, what: str, reason: str) -> None:
        """Print and keep that something was not measured."""
        self._keep(Figure(self.section, what, None, reason), f"  {what}: not measured, {reason}")

    def _keep(self, figure: Figure, line: str) -> None:
        self.found.append(figure)
        self.file.write_text(json.dumps([asdict(one) for one in self.found]), encoding="utf-8")
        say(line)


def read_figures(file: Path) -> list[Figure]:
    """Return the figures of a section's file; none where it wrote none."""
    if not file.exists():
        return []
    return [Figure(**one) for one in json.loads(file.read_text(encoding="utf-8"))]


def say(line: str) -> None:
    """Print a line at once."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()
