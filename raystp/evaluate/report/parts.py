"""The parts that a report's page is made of: figures, charts, tables, and the interactive maps, as plain values."""

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from bokeh.models.ui import UIElement


@dataclass(frozen=True)
class ReportFigure:
    """A PNG with its title, which is the alternative text, and a caption."""

    kind: ClassVar[str] = "figure"
    title: str
    png: bytes
    caption: str = ""

    @property
    def data_uri(self) -> str:
        """The PNG as a `data:` URI."""
        return f"data:image/png;base64,{base64.b64encode(self.png).decode('ascii')}"


@dataclass(frozen=True)
class ReportChart:
    """An interactive chart: a Bokeh figure or layout that belongs to no document yet."""

    kind: ClassVar[str] = "chart"
    title: str
    """What the chart shows; also its name for a screen reader."""
    model: UIElement
    caption: str = ""
    columns: int = 1
    """Charts beside each other where the page is wide: 1, 2 or 3."""


@dataclass(frozen=True)
class ReportTable:
    """A table of texts, all rows as long as the columns."""

    kind: ClassVar[str] = "table"
    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    note: str = ""


ReportPart = ReportChart | ReportFigure | ReportTable


@dataclass(frozen=True)
class ReportSection:
    """The figures of one test section or slide."""

    title: str
    figures: Sequence[ReportFigure]
    note: str = ""


@dataclass(frozen=True)
class ViewerPart:
    """The interactive maps as HTML: what goes into the page's head and body. The page holds Bokeh's script once.

    Both are trusted: whoever makes them has escaped the names that they hold.
    """

    head: str
    body: str
