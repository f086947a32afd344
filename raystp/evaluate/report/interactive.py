"""Bokeh in a page that loads nothing: its JavaScript once, and each chart as JSON beside the place where it is drawn.

The page's policy (`POLICY`) makes the browser refuse any request, so a mistake here is an error in the tests. Texts of
charts such as `$$x$$` would be read as formulas: `plain` prevents that.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass

from bokeh.core.types import ID
from bokeh.embed import json_item
from bokeh.models.ui import UIElement
from bokeh.models.widgets import Widget
from bokeh.resources import Resources
from markupsafe import Markup

from raystp.evaluate.report.parts import ReportChart

POLICY = (
    "default-src 'none'; script-src 'unsafe-inline' 'unsafe-eval'; style-src 'unsafe-inline'; "
    "img-src data: blob:; font-src data:; connect-src data: blob:; worker-src blob:"
)
"""Content security policy of the page: what is in the file may run, and nothing else is read. Bokeh's callbacks are
texts that the browser compiles, hence `unsafe-eval`."""

GENE_FIELD = "maps-gene"
"""Name of the field that chooses the gene of the maps; charts of genes set it too."""

_MATH = ("$$", r"\[", r"\(")
_JOINER = "\u2060"
"""Word joiner, which has no width: between two characters it ends a formula's mark."""


@dataclass(frozen=True)
class EmbeddedChart:
    """A chart as the page holds it."""

    key: str
    """Id of the element it is drawn into."""
    title: str
    caption: str
    columns: int
    json: Markup


def bokeh_script(*, widgets: bool) -> Markup:
    """Return Bokeh's own JavaScript as inline scripts: 1.3 MB, and 0.4 MB more with widgets."""
    components = ["bokeh", "bokeh-widgets"] if widgets else ["bokeh"]
    resources = Resources(mode="inline", components=components, log_level="warn")
    return Markup(resources.render_js())


def with_widgets(models: Sequence[UIElement]) -> bool:
    """Return whether any chart has a widget, such as a search field."""
    return any(isinstance(part, Widget) for model in models for part in model.references())


def embedded(charts: Sequence[ReportChart]) -> list[EmbeddedChart]:
    """Return the charts as JSON, in the same order."""
    found = []
    for number, chart in enumerate(charts):
        key = f"chart-{number}"
        found.append(
            EmbeddedChart(key, chart.title, chart.caption, chart.columns, script_json(json_item(chart.model, ID(key))))
        )
    return found


def script_json(value: object) -> Markup:
    """Return a value as JSON that cannot end the script element it is put into."""
    text = json.dumps(value, allow_nan=False, separators=(",", ":"))
    for mark, code in (("<", "\\u003c"), (">", "\\u003e"), ("&", "\\u0026"), ("'", "\\u0027")):
        text = text.replace(mark, code)
    return Markup(text)


def plain(text: str) -> str:
    """Return a name from outside as a text that Bokeh does not read as a formula."""
    for mark in _MATH:
        text = text.replace(mark, f"{mark[0]}{_JOINER}{mark[1]}")
    return text
