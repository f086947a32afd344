"""Figures of tiles on tissue: predictions and maps of whole slides.

Everything is drawn in level-0 pixels in the image's own orientation: origin at the top left, y down, equal scale on
both axes. So a map cannot be flipped or shifted against its tissue. Figures are built without
pyplot: there is no global state, and no display is needed.
"""

import io
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, UInt8
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.collections import Collection, PolyCollection
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from raystp.units import Level0Pixels

UNIT = "log1p CP10k"
COLOURS = "viridis"
BACKGROUND = "#f2f2f2"
PERCENTILES = (2.0, 98.0)
"""Of the colour limits: one extreme spot does not compress the scale of the others."""

MARGIN = 2.0
"""Spot diameters (or tile sides) of tissue shown around the outermost spots."""


@dataclass(frozen=True)
class SlideThumbnail:
    """A small image of a slide, and the size of the whole slide that it shows."""

    pixels: UInt8[np.ndarray, "y x 3"]
    width: Level0Pixels
    height: Level0Pixels


def whole_slide_figure(
    thumbnail: SlideThumbnail,
    boxes: Float[np.ndarray, "tile 3"],
    values: Float[np.ndarray, "tile"],
    *,
    gene: str,
    unit: str = UNIT,
) -> Figure:
    """Draw predicted expression over a slide without measurement.

    `boxes` are (x, y, side) in level-0 px, (x, y) top left.
    """
    bounds = (0.0, float(thumbnail.width), float(thumbnail.height), 0.0)
    figure, axes = _panels(2, bounds)
    _tissue(axes[0], thumbnail, "H&E")
    tiles = _tiles(boxes)
    _paint(axes[1], tiles, values, colour_limits(values))
    axes[1].set_title("predicted", fontsize=10)
    _colour_bar(figure, axes[1], tiles, unit)
    for panel in axes:
        _orient(panel, bounds)
    figure.suptitle(
        f"{gene}   predicted for {len(boxes)} tiles, not measured", fontsize=12, fontweight="bold", parse_math=False
    )
    return figure


def tiles_figure(
    thumbnail: SlideThumbnail,
    boxes: Float[np.ndarray, "tile 3"],
    maps: Mapping[str, tuple[np.ndarray, str]],
    title: str,
) -> Figure:
    """Draw maps of the tiles of a slide side by side: a map's title -> one value per tile, and its unit."""
    side = float(np.median(boxes[:, 2]))
    bounds = _bounds(boxes[:, :2] + boxes[:, 2:] / 2, side, thumbnail)
    figure, axes = _panels(1 + len(maps), bounds)
    _tissue(axes[0], thumbnail, "H&E")
    for panel, (name, (values, unit)) in zip(axes[1:], maps.items(), strict=True):
        tiles = _tiles(boxes)
        _paint(panel, tiles, values, colour_limits(values))
        panel.set_title(name, fontsize=10)
        _colour_bar(figure, panel, tiles, unit)
    for panel in axes:
        _orient(panel, bounds)
    figure.suptitle(title, fontsize=12, fontweight="bold", parse_math=False)
    return figure


def png(figure: Figure, dpi: int = 110) -> bytes:
    """Return the figure as PNG; equal figures give equal bytes."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=dpi, facecolor="white", metadata={"Software": None})
    return buffer.getvalue()


def colour_limits(values: Float[np.ndarray, "spot"]) -> tuple[float, float]:
    """Return the percentiles `PERCENTILES`; the full range if they are equal, as for a gene that few spots express."""
    low, high = np.percentile(values, PERCENTILES).tolist()
    if high <= low:
        low, high = float(values.min()), float(values.max())
    return (low, high) if high > low else (low, low + 1.0)


def _tiles(boxes: Float[np.ndarray, "tile 3"]) -> PolyCollection:
    corners = np.array([[0, 0], [1, 0], [1, 1], [0, 1]])
    return PolyCollection(list(boxes[:, None, :2] + boxes[:, None, 2:] * corners), antialiaseds=False)


def _panels(n: int, bounds: tuple[float, float, float, float]) -> tuple[Figure, list[Axes]]:
    left, right, bottom, top = bounds
    ratio = min(max((bottom - top) / (right - left), 0.4), 2.0)
    width = 4.0 if ratio < 1.0 else 4.0 / ratio**0.5
    figure = Figure(figsize=(n * (width + 0.8), width * ratio + 0.9), layout="constrained")
    return figure, list(np.atleast_1d(figure.subplots(1, n)))


def _bounds(
    xy: Float[np.ndarray, "spot 2"], side: float, thumbnail: SlideThumbnail
) -> tuple[float, float, float, float]:
    """Return left, right, bottom, top of the spots with a margin, inside the slide; bottom > top, because y is down."""
    left, top = np.maximum(xy.min(axis=0) - MARGIN * side, 0.0).tolist()
    right, bottom = np.minimum(xy.max(axis=0) + MARGIN * side, (thumbnail.width, thumbnail.height)).tolist()
    return left, right, bottom, top


def _tissue(panel: Axes, thumbnail: SlideThumbnail, title: str) -> None:
    panel.imshow(thumbnail.pixels, extent=(0.0, thumbnail.width, thumbnail.height, 0.0), origin="upper")
    panel.set_title(title, fontsize=10)


def _paint(panel: Axes, shapes: Collection, values: Float[np.ndarray, "_"], limits: tuple[float, float]) -> None:
    shapes.set(array=values, cmap=COLOURS, norm=Normalize(*limits), linewidth=0.0)
    panel.add_collection(shapes, autolim=False)
    panel.set_facecolor(BACKGROUND)


def _orient(panel: Axes, bounds: tuple[float, float, float, float]) -> None:
    panel.set(xlim=bounds[:2], ylim=bounds[2:], aspect="equal", xticks=[], yticks=[])


def _colour_bar(figure: Figure, panel: Axes, shapes: ScalarMappable, unit: str) -> None:
    bar = figure.colorbar(shapes, ax=panel, shrink=0.8, extend="both")
    bar.set_label(unit, fontsize=8)
    bar.ax.tick_params(labelsize=8)
