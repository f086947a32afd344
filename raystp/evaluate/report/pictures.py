"""Pictures of expression on tissue: measured beside predicted, and whole slides that were never measured.

Everything is drawn in level-0 pixels with the image's own orientation: origin at the top left, y down, one scale for
both axes, and spots at their true size. A picture in which a map could be flipped or shifted against its tissue proves
nothing. Figures are built without pyplot, so nothing is global and nothing needs a display.
"""

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, UInt8
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.collections import Collection, EllipseCollection, PolyCollection
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from raystp.units import Level0Pixels

UNIT = "log1p CP10k"
COLOURS = "viridis"
GROUND = "#f2f2f2"
ROBUST = (2.0, 98.0)
"""Percentiles of the colour limits: one extreme spot does not flatten the rest."""

UNDER_DISPERSED = 0.5
"""A prediction whose robust range is below this share of the measured one gets its own colour scale, and says so."""

MARGIN = 2.0
"""Spot diameters (or tile sides) of tissue shown around the outermost ones."""


@dataclass(frozen=True)
class SlideThumbnail:
    """A small picture of a slide, and the size of the whole slide it shows."""

    pixels: UInt8[np.ndarray, "y x 3"]
    width: Level0Pixels
    height: Level0Pixels


@dataclass(frozen=True)
class SpotLayout:
    """Where the spots of a section lie, in level-0 px: centres, and one diameter."""

    xy: Float[np.ndarray, "spot 2"]
    diameter: Level0Pixels


@dataclass(frozen=True)
class GeneMap:
    """One gene over the spots of a section."""

    gene: str
    measured: Float[np.ndarray, "spot"]
    predicted: Float[np.ndarray, "spot"]
    pcc: float
    unit: str = UNIT


def maps_figure(thumbnail: SlideThumbnail, spots: SpotLayout, gene: GeneMap) -> Figure:
    """Draw the tissue, the measured and the predicted spots side by side, over the same part of the slide.

    Measured and predicted share the colour limits of the measurement (2nd to 98th percentile), unless the prediction is
    under-dispersed; its title then says that it has its own.
    """
    box = _box(spots.xy, spots.diameter, thumbnail)
    figure, axes = _panels(3, box)
    _tissue(axes[0], thumbnail, "H&E")
    shared = colour_limits(gene.measured)
    own = colour_limits(gene.predicted) if is_under_dispersed(gene.predicted, gene.measured) else None
    note = " (own, narrower colour scale)" if own else ""
    for at, values, limits, title in (
        (axes[1], gene.measured, shared, "measured"),
        (axes[2], gene.predicted, own or shared, f"predicted{note}"),
    ):
        d = np.full(len(spots.xy), spots.diameter)
        circles = EllipseCollection(d, d, np.zeros(len(d)), units="xy", offsets=spots.xy, offset_transform=at.transData)
        _paint(at, circles, values, limits)
        at.set_title(title, fontsize=10)
        _bar(figure, at, circles, gene.unit)
    for at in axes:
        _orient(at, box)
    figure.suptitle(
        f"{gene.gene}   PCC {gene.pcc:.2f} over {len(spots.xy)} spots", fontsize=12, fontweight="bold", parse_math=False
    )
    return figure


def whole_slide_figure(
    thumbnail: SlideThumbnail,
    squares: Float[np.ndarray, "tile 3"],
    values: Float[np.ndarray, "tile"],
    *,
    gene: str,
    unit: str = UNIT,
) -> Figure:
    """Draw predicted expression over a slide that was never measured: `squares` are (x, y, side), (x, y) top left."""
    box = (0.0, float(thumbnail.width), float(thumbnail.height), 0.0)
    figure, axes = _panels(2, box)
    _tissue(axes[0], thumbnail, "H&E")
    tiles = _tiles(squares)
    _paint(axes[1], tiles, values, colour_limits(values))
    axes[1].set_title("predicted", fontsize=10)
    _bar(figure, axes[1], tiles, unit)
    for at in axes:
        _orient(at, box)
    figure.suptitle(
        f"{gene}   predicted for {len(squares)} tiles, not measured", fontsize=12, fontweight="bold", parse_math=False
    )
    return figure


def tiles_figure(
    thumbnail: SlideThumbnail,
    squares: Float[np.ndarray, "tile 3"],
    maps: Mapping[str, tuple[np.ndarray, str]],
    title: str,
) -> Figure:
    """Draw one map beside another over the tiles of a slide: a map's title -> a value a tile, and its unit."""
    side = float(np.median(squares[:, 2]))
    box = _box(squares[:, :2] + squares[:, 2:] / 2, side, thumbnail)
    figure, axes = _panels(1 + len(maps), box)
    _tissue(axes[0], thumbnail, "H&E")
    for at, (name, (values, unit)) in zip(axes[1:], maps.items(), strict=True):
        tiles = _tiles(squares)
        _paint(at, tiles, values, colour_limits(values))
        at.set_title(name, fontsize=10)
        _bar(figure, at, tiles, unit)
    for at in axes:
        _orient(at, box)
    figure.suptitle(title, fontsize=12, fontweight="bold", parse_math=False)
    return figure


def cases_figure(panels: Sequence[tuple[str, Float[np.ndarray, "case"], Float[np.ndarray, "case"]]]) -> Figure:
    """Draw predicted over measured, a point a case: a panel for each title, measured and predicted values."""
    figure = Figure(figsize=(3.6 * len(panels), 3.6), layout="constrained")
    for at, (title, measured, predicted) in zip(np.atleast_1d(figure.subplots(1, len(panels))), panels, strict=True):
        both = np.concatenate([measured, predicted])
        ends = [both.min(), both.max()]
        at.plot(ends, ends, color="#9aa5b1", linewidth=1, zorder=0)
        at.scatter(measured, predicted, s=22, color="#1f77b4", edgecolor="white", linewidth=0.5)
        at.set(xlabel="measured", ylabel="predicted", aspect="equal")
        at.set_title(title, fontsize=10, parse_math=False)
        at.grid(alpha=0.3)
    return figure


def png(figure: Figure, dpi: int = 110) -> bytes:
    """Return the figure as PNG bytes; equal figures give equal bytes."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=dpi, facecolor="white", metadata={"Software": None})
    return buffer.getvalue()


def colour_limits(values: Float[np.ndarray, "spot"]) -> tuple[float, float]:
    """Return the robust percentiles; the full range where they coincide, as for a gene that few spots express."""
    low, high = np.percentile(values, ROBUST).tolist()
    if high <= low:
        low, high = float(values.min()), float(values.max())
    return (low, high) if high > low else (low, low + 1.0)


def is_under_dispersed(predicted: Float[np.ndarray, "spot"], measured: Float[np.ndarray, "spot"]) -> bool:
    """Say whether the prediction's robust range is less than half of the measurement's."""
    low, high = np.percentile(predicted, ROBUST).tolist()
    floor, ceiling = colour_limits(measured)
    return bool(high - low < UNDER_DISPERSED * (ceiling - floor))


def _tiles(squares: Float[np.ndarray, "tile 3"]) -> PolyCollection:
    corners = np.array([[0, 0], [1, 0], [1, 1], [0, 1]])
    return PolyCollection(list(squares[:, None, :2] + squares[:, None, 2:] * corners), antialiaseds=False)


def _panels(n: int, box: tuple[float, float, float, float]) -> tuple[Figure, list[Axes]]:
    left, right, bottom, top = box
    tall = min(max((bottom - top) / (right - left), 0.4), 2.0)
    width = 4.0 if tall < 1.0 else 4.0 / tall**0.5
    figure = Figure(figsize=(n * (width + 0.8), width * tall + 0.9), layout="constrained")
    return figure, list(np.atleast_1d(figure.subplots(1, n)))


def _box(xy: Float[np.ndarray, "spot 2"], side: float, thumbnail: SlideThumbnail) -> tuple[float, float, float, float]:
    """Return left, right, bottom, top of the spots with a margin, inside the slide; bottom > top, since y goes down."""
    left, top = np.maximum(xy.min(axis=0) - MARGIN * side, 0.0).tolist()
    right, bottom = np.minimum(xy.max(axis=0) + MARGIN * side, (thumbnail.width, thumbnail.height)).tolist()
    return left, right, bottom, top


def _tissue(at: Axes, thumbnail: SlideThumbnail, title: str) -> None:
    at.imshow(thumbnail.pixels, extent=(0.0, thumbnail.width, thumbnail.height, 0.0), origin="upper")
    at.set_title(title, fontsize=10)


def _paint(at: Axes, shapes: Collection, values: Float[np.ndarray, "_"], limits: tuple[float, float]) -> None:
    shapes.set(array=values, cmap=COLOURS, norm=Normalize(*limits), linewidth=0.0)
    at.add_collection(shapes, autolim=False)
    at.set_facecolor(GROUND)


def _orient(at: Axes, box: tuple[float, float, float, float]) -> None:
    at.set(xlim=box[:2], ylim=box[2:], aspect="equal", xticks=[], yticks=[])


def _bar(figure: Figure, at: Axes, shapes: ScalarMappable, unit: str) -> None:
    bar = figure.colorbar(shapes, ax=at, shrink=0.8, extend="both")
    bar.set_label(unit, fontsize=8)
    bar.ax.tick_params(labelsize=8)
