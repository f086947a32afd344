"""Spots on a grid over a white slide with a red top-left and a blue bottom-right corner; ERBB2 is high at one spot."""

import io

import numpy as np
from PIL import Image

from raystp.evaluate.metrics.score import SectionOutcome
from raystp.evaluate.report.viewer.content import (
    MEASURED,
    PREDICTED,
    SPREAD,
    MapContent,
    MapSlide,
    NearestTiles,
    ReferenceTile,
    SlideThumbnail,
)
from raystp.evaluate.report.viewer.scores import gene_scores
from raystp.units import Level0Pixels

WIDTH, HEIGHT, PITCH = 2000.0, 1000.0, 100.0
GENES = ("ERBB2", "GRB7", "FASN", "ACTB")
HIGH = 19
"""Row of the spot at the top right."""


def thumbnail() -> SlideThumbnail:
    pixels = np.full((50, 100, 3), 255, dtype=np.uint8)
    pixels[:5, :5], pixels[-5:, -5:] = (255, 0, 0), (0, 0, 255)
    return SlideThumbnail(pixels, Level0Pixels(WIDTH), Level0Pixels(HEIGHT))


def picture() -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8), (0, 128, 0)).save(buffer, format="JPEG")
    return buffer.getvalue()


def grid() -> np.ndarray:
    """Return centres, row by row from the top left."""
    columns, rows = np.arange(PITCH / 2, WIDTH, PITCH), np.arange(PITCH / 2, HEIGHT, PITCH)
    return np.stack(np.meshgrid(columns, rows), axis=-1).reshape(-1, 2)


def outcome() -> SectionOutcome:
    """ERBB2: 4 at one spot, else below 0.2, predicted well; FASN: predicted at random; ACTB: not measured."""
    rng, xy = np.random.default_rng(0), grid()
    measured = rng.random((len(xy), len(GENES)))
    measured[:, 0] = np.where(np.arange(len(xy)) == HIGH, 4.0, 0.2 * measured[:, 0])
    measured[:, 3] = np.nan
    predicted = np.nan_to_num(measured) * 0.5 + 1.0
    predicted[:, 2] = np.random.default_rng(2).random(len(xy))
    return SectionOutcome(predicted, measured, xy, "P")


def section(name: str = "A") -> MapSlide:
    one = outcome()
    return MapSlide(
        name=name,
        note="patient P",
        thumbnail=thumbnail(),
        shape="circle",
        xy=one.xy,
        size=Level0Pixels(80.0),
        layers={MEASURED: one.measured, PREDICTED: one.predicted, SPREAD: one.predicted / 4},
        spots=[f"spot {number}" for number in range(len(one.xy))],
        distance=np.where(np.arange(len(one.xy)) == HIGH, 2.0, 0.5),
        far_beyond=1.0,
        nearest=NearestTiles(np.tile([1, 0], (len(one.xy), 1)), np.tile([0.125, 0.25], (len(one.xy), 1))),
        scores=gene_scores(one, [np.array([0, 1])], rng=np.random.default_rng(0), draws=200),
    )


def whole_slide(name: str = "W") -> MapSlide:
    """A slide without measurement: squares, ERBB2 rises from left to right."""
    xy = grid()
    predicted = np.repeat(xy[:, :1] / WIDTH, len(GENES), axis=1)
    return MapSlide(name, "200 tiles", thumbnail(), "square", xy, Level0Pixels(PITCH), {PREDICTED: predicted})


def content(*slides: MapSlide) -> MapContent:
    return MapContent(
        model="bleep",
        slides=slides or [section(), whole_slide()],
        genes=GENES,
        first=[2, 1],
        importance=np.array([1.0, 2.0, 3.0, 4.0]),
        sets={"HER2 amplicon": np.array([0, 1])},
        references=[ReferenceTile("R", "Q", "r0"), ReferenceTile("R", "Q", "r1", picture())],
        reference_expression=np.array([[1.0, 2.0, 3.0, np.nan], [3.0, 2.0, 1.0, 0.0]]),
    )
