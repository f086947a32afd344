"""Predicted expression for QuPath: tiles with measurements as GeoJSON, or a table of measurements as CSV.

QuPath colours detections, tiles and cells by their measurements, so each tile is an object of the type `tile`. Its id
is a UUID of the slide's name and the tile's number: a second import of a slide has the same ids. Coordinates are px of
level 0 with two decimals, from the corner of the slide's bounds where it has any, as QuPath shows them.
"""

import csv
import json
import math
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from raystp.errors import FormatError
from raystp.interop.outputs.folders import json_text
from raystp.interop.outputs.slide import OutputOptions, SlideExpression
from raystp.storage import StoragePath

MAX_BYTES = 200_000_000
"""QuPath reads a file as a whole; larger ones make it slow."""

TILE_COLOUR = (60, 120, 216)
TILE_CLASS = "Predicted"
SPREAD = "spread"

DIGITS = 4
"""Decimals of a value, a distance and a position in um."""

GEOJSON_BYTES, VALUE_BYTES = 420, 17
CSV_BYTES, CSV_VALUE_BYTES = 70, 9
"""Most bytes of a tile without its values, and of a value without the gene's name, for the bound on a file."""


Values = dict[str, float | int | str]


def write(slide: SlideExpression, folder: StoragePath, options: OutputOptions) -> Sequence[str]:
    """Write `<slide>.geojson` or, with `measurements: csv`, `<slide>.csv` into a folder.

    Raises:
        FormatError: the file would have over 200 MB; the message has the number of genes that fits.
    """
    _check_size(slide, options.measurements)
    if options.measurements == "csv":
        (folder / f"{slide.slide}.csv").write_file(lambda path: _write_csv(slide, path))
    else:
        (folder / f"{slide.slide}.geojson").write_file(lambda path: _write_geojson(slide, path))
    return []


def tile_uuid(slide: str, tile: int) -> str:
    """Return the id of a tile in QuPath."""
    return str(uuid.uuid5(uuid.NAMESPACE_URL, f"raystp:{slide}:{tile}"))


def _write_geojson(slide: SlideExpression, path: Path) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        about = {"slide": slide.slide, "width": slide.size[0], "height": slide.size[1], "mpp": slide.mpp}
        source = json_text({**about, **slide.provenance})
        file.write('{"type":"FeatureCollection","raystp":' + source + ',"features":[')
        for number, (row, measurements) in enumerate(_measured_rows(slide)):
            file.write(",\n" if number else "\n")
            file.write(json.dumps(_feature(slide, row, measurements), separators=(",", ":"), ensure_ascii=False))
        file.write("\n]}\n")


def _feature(slide: SlideExpression, row: int, measurements: Values) -> dict[str, Any]:
    tile = int(slide.tiles[row])
    x, y, side = (slide.boxes[row] - (*slide.origin, 0)).tolist()
    corners = [(x, y), (x + side, y), (x + side, y + side), (x, y + side), (x, y)]
    ring = [[round(one, 2) for one in corner] for corner in corners]
    return {
        "type": "Feature",
        "id": tile_uuid(slide.slide, tile),
        "geometry": {"type": "Polygon", "coordinates": [ring]},
        "properties": {
            "objectType": "tile",
            "name": f"{slide.slide}-{tile:06d}",
            "classification": {"name": TILE_CLASS, "color": list(TILE_COLOUR)},
            "isLocked": True,
            "measurements": measurements,
        },
    }


def _measured_rows(slide: SlideExpression) -> Iterator[tuple[int, Values]]:
    """Yield each tile's row and its measurements; a missing value (NaN) has no entry."""
    spread = slide.layers.get(SPREAD)
    for first, slab in slide.values.slabs():
        spreads = None if spread is None else spread.rows(first, first + len(slab))
        for offset, values in enumerate(slab.tolist()):
            row = first + offset
            found = {f"pred {gene}": value for gene, value in zip(slide.genes, values, strict=True)}
            if spreads is not None:
                of_tile = spreads[offset].tolist()
                found |= {f"spread {gene}": value for gene, value in zip(slide.genes, of_tile, strict=True)}
            found |= {name: float(column[row]) for name, column in slide.per_tile.items() if _is_number(column)}
            yield row, {name: _number(value) for name, value in found.items() if not math.isnan(value)}


def _is_number(column: np.ndarray) -> bool:
    return column.dtype.kind in "biuf"


def _number(value: float) -> float | int | str:
    """Return a measurement: rounded, a whole number without decimals, an infinity as QuPath's text."""
    if math.isinf(value):
        return "Infinity" if value > 0 else "-Infinity"
    rounded = round(value, DIGITS)
    return int(rounded) if rounded == int(rounded) else rounded


def _write_csv(slide: SlideExpression, path: Path) -> None:
    """Write `tile_id, x_um, y_um` (the centre, from the corner that QuPath shows) and a column per measurement."""
    centres = (slide.centres - slide.origin) * slide.mpp
    names = [f"pred {gene}" for gene in slide.genes]
    names += [f"spread {gene}" for gene in slide.genes] if SPREAD in slide.layers else []
    names += [name for name, column in slide.per_tile.items() if _is_number(column)]
    with path.open("w", encoding="utf-8", newline="") as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(["tile_id", "x_um", "y_um", *names])
        for row, found in _measured_rows(slide):
            place = [round(one, DIGITS) for one in centres[row].tolist()]
            rows.writerow([tile_uuid(slide.slide, int(slide.tiles[row])), *place, *(found.get(name) for name in names)])


def _check_size(slide: SlideExpression, form: str) -> None:
    """Raise FormatError where the file would be too large, by the size of its longest lines."""
    if not len(slide.tiles):
        return
    longest, layers = max(map(len, slide.genes), default=0), 2 if SPREAD in slide.layers else 1
    fixed, per_value = (GEOJSON_BYTES, VALUE_BYTES + longest) if form == "geojson" else (CSV_BYTES, CSV_VALUE_BYTES)
    header = layers * sum(len(gene) + len(f"{SPREAD} ,") for gene in slide.genes)
    size = header + len(slide.tiles) * (fixed + layers * per_value * len(slide.genes))
    if size > MAX_BYTES:
        fits = int((MAX_BYTES / len(slide.tiles) - fixed) // (layers * per_value))
        advice = f"choose at most {fits} with `genes`" if fits > 0 else "use spatialdata or csv for so many tiles"
        msg = (
            f"slide {slide.slide!r}: {len(slide.tiles)} tiles with {len(slide.genes)} genes are about "
            f"{size / 1e6:.0f} MB of {form}, and QuPath takes {MAX_BYTES / 1e6:.0f} MB: {advice}"
        )
        raise FormatError(msg)
