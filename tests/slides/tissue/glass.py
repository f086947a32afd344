"""Drawn glasses with pieces of stained tissue, and a Leica SCN file of a part of a glass."""

from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from jaxtyping import UInt8

Rgb = UInt8[np.ndarray, "row col 3"]


def glass(width: int, height: int) -> Rgb:
    return np.full((height, width, 3), (243, 241, 244), np.uint8)


def stain(image: Rgb, centre: tuple[float, float], radii: tuple[float, float]) -> Rgb:
    """Stain an ellipse around (x, y) in place, pink and purple with texture."""
    left, top = (max(0, int(middle - radius)) for middle, radius in zip(centre, radii, strict=True))
    right, bottom = (int(middle + radius) + 2 for middle, radius in zip(centre, radii, strict=True))
    part = image[top:bottom, left:right]
    row, column = np.mgrid[top : top + part.shape[0], left : left + part.shape[1]]
    inside = ((column - centre[0]) / radii[0]) ** 2 + ((row - centre[1]) / radii[1]) ** 2 < 1
    texture = np.random.default_rng(0).normal(0, 12, (int(inside.sum()), 1))
    part[inside] = np.clip(np.array((200, 110, 175)) + texture, 0, 255).astype(np.uint8)
    return image


def write_scn(path: Path, scan: Rgb, corner: tuple[int, int]) -> Path:
    """Write a Leica SCN of 6,000 x 8,000 level-0 px at 0.5 um/px, of which `scan` at `corner` (x, y) was scanned."""
    nm = 500
    glass_nm = (6_000 * nm, 8_000 * nm)
    macro = np.full((160, 120, 3), 235, np.uint8)
    images = _image("macro", macro, ifd=0, view=(*glass_nm, 0, 0), objective=0.6)
    view = (scan.shape[1] * nm, scan.shape[0] * nm, corner[0] * nm, corner[1] * nm)
    images += _image("scan", scan, ifd=1, view=view, objective=20)
    xml = (
        '<?xml version="1.0"?><scn xmlns="http://www.leica-microsystems.com/scn/2010/10/01">'
        f'<collection name="glass" uuid="glass" sizeX="{glass_nm[0]}" sizeY="{glass_nm[1]}"><barcode>1</barcode>'
        f"{images}</collection></scn>"
    )
    options: Any = {"photometric": "rgb", "tile": (256, 256), "compression": "jpeg", "metadata": None}
    options |= {"resolution": (20_000, 20_000), "resolutionunit": "centimeter"}
    with tifffile.TiffWriter(path, bigtiff=True) as tiff:
        tiff.write(macro, description=xml, **options)
        tiff.write(scan, **options)
    return path


def _image(name: str, pixels: Rgb, *, ifd: int, view: tuple[int, int, int, int], objective: float) -> str:
    rows, columns = pixels.shape[:2]
    width, height, x, y = view
    return (
        f'<image name="{name}" uuid="{name}"><creationDate>2024-01-01T00:00:00Z</creationDate>'
        f'<device model="Leica SCN400" version="1"/><pixels sizeX="{columns}" sizeY="{rows}">'
        f'<dimension sizeX="{columns}" sizeY="{rows}" r="0" ifd="{ifd}"/></pixels>'
        f'<view sizeX="{width}" sizeY="{height}" offsetX="{x}" offsetY="{y}" spacingZ="0"/>'
        f"<scanSettings><objectiveSettings><objective>{objective}</objective></objectiveSettings>"
        "<illuminationSettings><numericalAperture>0.4</numericalAperture>"
        "<illuminationSource>brightfield</illuminationSource></illuminationSettings></scanSettings></image>"
    )
