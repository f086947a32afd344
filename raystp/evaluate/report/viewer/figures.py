"""The widgets and the linked maps, as Bokeh models: tissue below, spots or tiles in the colours of a layer above.

Everything is in level-0 px of the slide: origin at the top left, y down, one scale on both axes. All maps share their
ranges and their source, so they show the same place and the same spots. The scripts fill them in the browser.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bokeh.core.property.vectorization import Field
from bokeh.document import Document
from bokeh.events import DocumentReady
from bokeh.models import (
    BoxZoomTool,
    Circle,
    Column,
    ColumnDataSource,
    CustomJS,
    HoverTool,
    LinearColorMapper,
    Model,
    PanTool,
    Range1d,
    Rect,
    ResetTool,
    SaveTool,
    TapTool,
    WheelZoomTool,
    ZoomInTool,
    ZoomOutTool,
)
from bokeh.models.annotations import ColorBar
from bokeh.models.glyph import Glyph
from bokeh.models.renderers import DataRenderer
from bokeh.models.widgets import AutocompleteInput, RadioButtonGroup, Select, Slider
from bokeh.palettes import Viridis256
from bokeh.plotting import figure

from raystp.evaluate.report.interactive import GENE_FIELD

SCRIPTS = Path(__file__).parent / "scripts"
TISSUE = "H&E only"
FAR, PICKED = "#d9480f", "#000000"
"""Outlines of spots that are far from the reference, and of the spot that was clicked."""

HEIGHT_PX = 440
COMPLETIONS = 30
"""Names offered while one is typed."""

STYLE = """
.bk-input, .bk-btn, .bk-menu { color: var(--text); background: var(--background); border-color: var(--line); }
.bk-btn.bk-active { background: var(--accent); color: var(--background); }
.bk-menu > * { color: var(--text) !important; background: var(--background) !important; }
.bk-menu > .bk-active, .bk-menu > :hover { background: var(--accent) !important; color: var(--background) !important; }
label, .bk-slider-title { color: var(--text); }
"""
"""Colours of the page, whose variables reach into the widgets."""


@dataclass(frozen=True)
class Widgets:
    """What a reader chooses."""

    gene: AutocompleteInput
    buttons: RadioButtonGroup
    slide: Select
    layers: Sequence[Select]
    """The layer of each map."""
    opacity: Slider

    def __post_init__(self) -> None:
        for widget in (self.gene, self.buttons, self.slide, *self.layers, self.opacity):
            widget.sizing_mode = "stretch_width"
            widget.stylesheets = [STYLE]

    @classmethod
    def of(cls, names: Sequence[str], first: Sequence[str], slides: Sequence[str], layers: Sequence[str]) -> "Widgets":
        """Return the widgets: all `names`, a button for each of `first`, and a map for each of the first 3 layers."""
        titles = ["Left map", "Middle map", "Right map"]
        shown = [layers[min(at, len(layers) - 1)] for at in range(len(titles))]
        return cls(
            gene=AutocompleteInput(
                title="Gene or gene set",
                value=first[0],
                completions=sorted(names, key=str.lower),
                case_sensitive=False,
                min_characters=1,
                search_strategy="starts_with",
                max_completions=COMPLETIONS,
                restrict=False,
                placeholder="type a name",
                name=GENE_FIELD,
            ),
            buttons=RadioButtonGroup(labels=list(first), active=0),
            slide=Select(title="Section or slide", value=slides[0], options=_options(slides)),
            layers=[
                Select(title=title, value=value, options=_options([*layers, TISSUE]))
                for title, value in zip(titles, shown, strict=True)
            ],
            opacity=Slider(title="Opacity over the tissue", start=0.0, end=1.0, step=0.05, value=0.85),
        )


def _options(names: Sequence[str]) -> list[str | tuple[Any, str]]:
    return [*names]


@dataclass(frozen=True)
class Map:
    """One map: its figure, the spots drawn as circles or as squares, and their colours."""

    figure: figure
    circles: DataRenderer
    squares: DataRenderer
    mapper: LinearColorMapper
    bar: ColorBar
    hover: HoverTool


@dataclass(frozen=True)
class Shared:
    """What all maps have in common."""

    source: ColumnDataSource
    image: ColumnDataSource
    x_range: Range1d
    y_range: Range1d

    @classmethod
    def of(cls, columns: Sequence[str]) -> "Shared":
        """Return empty sources; `columns` are those of the spots."""
        source = ColumnDataSource({column: [] for column in columns}, name="maps-spots")
        image = ColumnDataSource({column: [] for column in ("url", "x", "y", "w", "h")})
        return cls(source, image, Range1d(start=0, end=1), Range1d(start=1, end=0))


def viewer_document(widgets: Widgets, columns: Sequence[str], unit: str) -> tuple[Document, dict[str, Model]]:
    """Return a document, and its roots by the place in the page where they belong.

    `columns` are the names of the layers, `unit` that of the first: a colour bar without a title gets no room for one.
    """
    shared = Shared.of(["x", "y", "size", "radius", "edge", "name", *columns])
    maps = [_map(shared, columns[0], unit) for _ in widgets.layers]
    parts = {
        "figures": [one.figure for one in maps],
        "circles": [one.circles for one in maps],
        "squares": [one.squares for one in maps],
        "mappers": [one.mapper for one in maps],
        "bars": [one.bar for one in maps],
        "hovers": [one.hover for one in maps],
        **vars(shared),
    }
    show = _script("show", parts | vars(widgets))
    for widget in (widgets.gene, widgets.slide, *widgets.layers, widgets.opacity):
        widget.js_on_change("value", show)
    widgets.buttons.js_on_change("active", _script("press", {"buttons": widgets.buttons, "gene": widgets.gene}))
    explain = _script("explain", {"source": shared.source})
    shared.source.selected.js_on_change("indices", explain)
    keep_scale = _script("keep_scale", {"x_range": shared.x_range, "y_range": shared.y_range})
    for changed in ("inner_width", "inner_height"):
        maps[0].figure.js_on_change(changed, keep_scale)
    roots: dict[str, Model] = {
        "gene": widgets.gene,
        "buttons": widgets.buttons,
        "slide": widgets.slide,
        "opacity": widgets.opacity,
    }
    for at, (one, layer) in enumerate(zip(maps, widgets.layers, strict=True)):
        roots[f"map{at}"] = Column(children=[layer, one.figure], sizing_mode="stretch_width")
    document = Document()
    for root in roots.values():
        document.add_root(root)
    document.js_on_event(DocumentReady, show, explain, _script("ready", {"bars": parts["bars"], "gene": widgets.gene}))
    return document, roots


def _script(name: str, args: dict[str, object]) -> CustomJS:
    return CustomJS(code=(SCRIPTS / f"{name}.js").read_text(encoding="utf-8"), args=args, module=False)


def _map(shared: Shared, column: str, unit: str) -> Map:
    hover = HoverTool(tooltips=[("", "@name")])
    wheel = WheelZoomTool(modifiers={"ctrl": True})
    plot = figure(
        x_range=shared.x_range,
        y_range=shared.y_range,
        height=HEIGHT_PX,
        sizing_mode="stretch_width",
        tools=[
            PanTool(),
            wheel,
            BoxZoomTool(match_aspect=True),
            ZoomInTool(),
            ZoomOutTool(),
            ResetTool(),
            SaveTool(),
            TapTool(),
            hover,
        ],
        active_scroll=wheel,
        toolbar_location="above",
        background_fill_color=None,
        border_fill_color=None,
        min_border=4,
    )
    plot.axis.visible = False
    plot.grid.visible = False
    plot.toolbar.logo = None
    plot.image_url("url", "x", "y", "w", "h", source=shared.image, anchor="top_left", level="image")
    mapper = LinearColorMapper(palette=Viridis256, low=0, high=1, nan_color="rgba(0,0,0,0)")
    fill = Field(column, transform=mapper)
    circles, squares = (
        plot.add_glyph(shared.source, drawn, selection_glyph=picked, nonselection_glyph=drawn)
        for drawn, picked in zip(_shapes(fill, FAR, "edge"), _shapes(fill, PICKED, 3), strict=True)
    )
    bar = ColorBar(color_mapper=mapper, title=unit, height=8, padding=2, background_fill_color=None)
    plot.add_layout(bar, "below")
    hover.renderers = [circles, squares]
    return Map(plot, circles, squares, mapper, bar, hover)


def _shapes(fill: Field, line: str, width: str | int) -> tuple[Glyph, Glyph]:
    """Return a spot and a tile; `width` is that of the outline in px, or the column that has it."""
    return (
        Circle(x="x", y="y", radius="radius", fill_color=fill, line_color=line, line_width=width),
        Rect(x="x", y="y", width="size", height="size", fill_color=fill, line_color=line, line_width=width),
    )
