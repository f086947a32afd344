"""Where spots are in their section, and the codes of these places that are added to expression.

The published code adds one learned vector for the column and one for the row of the array. Each table has 65,536 rows,
because pixels are the coordinates on Visium. Here cells are counted in pitches on any array.
"""

import math

import numpy as np
import torch
from jaxtyping import Float, Float32, Float64
from torch import Tensor, nn

from raystp.errors import ModelError
from raystp.models.mclstexp.options import MclstexpOptions
from raystp.models.neighbours import pitches
from raystp.models.predictor import SpotSections
from raystp.units import tile_centres

CELLS = 256
"""Columns and rows with a learned code. An array of 6.5 mm has 33 (legacy ST) to 75 (Visium)."""

SHORTEST_UM, WAVES = 250.0, 7
"""Shortest wavelength of the sines and cosines, and their number, each twice as long as the last: up to 16 mm."""


def section_places(
    options: MclstexpOptions, sections: SpotSections, tile_um: float | None
) -> Float32[np.ndarray, "spot 2"]:
    """Return each spot's place as its code reads it: cell (column, row), um from the section's centre, or zeros.

    Cells count pitches from the section's corner; the section's centre is the mean of its spots. So `sections` are
    whole. `tile_um` is the side of the tiles. Raises ModelError for a section of more than 256 columns or rows.
    """
    if options.positions == "none":
        return np.zeros((len(sections.group), 2), np.float32)
    centres = tile_centres(sections.boxes)
    if options.positions == "sincos":
        if tile_um is None:
            msg = "positions=sincos needs um, and the model's record has no side of its tiles: train the model again"
            raise ModelError(msg)
        centres *= tile_um / sections.boxes[:, 2:]
    out = np.empty((len(centres), 2), np.float32)
    for number in np.unique(sections.group).tolist():
        rows = sections.group == number
        own = centres[rows]
        if options.positions == "sincos":
            out[rows] = own - own.mean(axis=0)
        else:
            out[rows] = _cells(own)
    return out


def _cells(centres: Float64[np.ndarray, "spot 2"]) -> Float64[np.ndarray, "spot 2"]:
    """Return the column and the row of each spot of one section."""
    pitch = float(pitches(centres, np.zeros(len(centres), np.int64))[0])
    cells: np.ndarray = np.round((centres - centres.min(axis=0)) / (pitch if pitch > 0 else np.inf))
    most = int(cells.max()) + 1
    if most > CELLS:
        msg = f"positions=learned has codes of {CELLS} columns and rows, and a section has {most}: use positions=sincos"
        raise ModelError(msg)
    return cells


class LearnedCodes(nn.Module):
    """One vector for each column and one for each row of the array (published)."""

    def __init__(self, genes: int, sd: float) -> None:
        super().__init__()
        self.x, self.y = nn.Embedding(CELLS, genes), nn.Embedding(CELLS, genes)
        for table in (self.x, self.y):
            nn.init.normal_(table.weight, std=sd)

    def forward(self, places: Float[Tensor, "spot 2"]) -> Float[Tensor, "spot gene"]:
        """Return the codes of cells (column, row)."""
        cells = places.long()
        codes: Tensor = self.x(cells[:, 0]) + self.y(cells[:, 1])
        return codes


class WaveCodes(nn.Module):
    """A linear map, 0 at the start, of sines and cosines of the distance from the section's centre."""

    waves: Tensor

    def __init__(self, genes: int) -> None:
        super().__init__()
        self.linear = nn.Linear(4 * WAVES, genes, bias=False)
        nn.init.zeros_(self.linear.weight)
        self.register_buffer("waves", SHORTEST_UM * 2.0 ** torch.arange(WAVES))

    def forward(self, places: Float[Tensor, "spot 2"]) -> Float[Tensor, "spot gene"]:
        """Return the codes of places in um."""
        angles = (2 * math.pi * places[:, :, None] / self.waves).flatten(1)
        codes: Tensor = self.linear(torch.cat([angles.sin(), angles.cos()], dim=1))
        return codes


def codes_of(options: MclstexpOptions, genes: int) -> nn.Module | None:
    """Return the module from places to codes, or None."""
    if options.positions == "learned":
        return LearnedCodes(genes, options.position_sd)
    return WaveCodes(genes) if options.positions == "sincos" else None
