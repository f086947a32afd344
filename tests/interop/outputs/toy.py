"""A slide of 5 x 4 tiles whose values can be seen, for all formats."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import shapely

from raystp.interop.outputs.slide import Matrix, MeasuredSpots, SlideExpression

COLUMNS, ROWS, SIDE, MPP = 5, 4, 200.0, 0.5
GENES = ("ERBB2", "GNAS", "FN1")
CORNER = (100.0, 300.0)
SIZE = (1600, 1300)


def toy_slide() -> SlideExpression:
    """Return a slide: ERBB2 is the tile's number, GNAS its column, FN1 its row; GNAS of tile 3 is missing."""
    column, row = np.meshgrid(np.arange(COLUMNS), np.arange(ROWS))
    place = np.column_stack([column.ravel(), row.ravel()]).astype(float)
    boxes = np.column_stack([place * SIDE + CORNER, np.full(len(place), SIDE)])
    number = np.arange(len(place))
    values = np.column_stack([number, place[:, 0], place[:, 1]]).astype(np.float32)
    values[3, 1] = np.nan
    names = tuple(f"{x}x{y}" for x, y in place.astype(int).tolist())
    tissue = shapely.MultiPolygon([shapely.box(0, 0, 700, 1300), shapely.box(800, 0, 1500, 1200)])
    return SlideExpression(
        slide="S1",
        boxes=boxes,
        genes=GENES,
        values=Matrix(values),
        mpp=MPP,
        size=SIZE,
        tiles=number,
        model="bleep",
        tile_px=224,
        encoder="tiny",
        layers={"spread": Matrix(values / 2)},
        per_tile={"distance": number / 10, "far": number == 7},
        measured=MeasuredSpots(names, boxes[:, :2] + SIDE / 2, 180.0, Matrix(values + 1)),
        tissue=tissue,
        thumbnail=np.arange(130 * 160 * 3, dtype=np.uint8).reshape(130, 160, 3),
        embeddings=Matrix(np.outer(number, np.arange(4)).astype(np.float16)),
        provenance={"artifact": "impute/toy-0123", "protocol": "patient"},
    )


def of_tiles(slide: SlideExpression, rows: np.ndarray) -> SlideExpression:
    """Return the slide with some of its tiles, and only their boxes and predictions."""
    values = Matrix(slide.values.read()[rows])
    plain = replace(slide, layers={}, per_tile={}, measured=None, embeddings=None)
    return replace(plain, boxes=slide.boxes[rows], tiles=slide.tiles[rows], values=values)


def contents(folder: Path) -> dict[str, bytes]:
    """Return every file below a folder with its bytes."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
