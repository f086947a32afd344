"""Arrays as text in the page: values of a gene are steps of its own range, deflated and in base64.

The browser inflates a layer when it is first shown (`DecompressionStream`). A step is 1/254 of a gene's range in the
slide, or 1/62 where there are many values. The last code is a missing value.
"""

import base64
import zlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, UInt8

from raystp.evaluate.report.viewer.content import MEASURED, PREDICTED, MapContent

MISSING = 255
"""Code of a value that is missing."""

FINE, COARSE = 254, 62
"""Steps of a gene's range."""

COARSE_ABOVE = 10_000_000
"""Values of all layers above which steps are coarse."""

BUDGET = 10_000_000
"""Most bytes of all layers in the page."""


@dataclass(frozen=True)
class PackedLayer:
    """A layer of a slide as text: float32 lowest value and step of each gene, then a byte per gene and spot."""

    slide: int
    layer: str
    genes: int
    """The first genes of `MapContent.order` that are stored."""
    text: str


@dataclass(frozen=True)
class Packed:
    """All layers, and a sentence for each thing that was left out."""

    layers: Sequence[PackedLayer]
    steps: int
    left_out: Sequence[str]
    references: int = 0
    """Reference tiles whose measurement is stored."""
    reference_genes: int = 0
    """The first genes of `MapContent.order` that are stored of them."""
    reference_text: str = ""


def pack(content: MapContent, budget: int = BUDGET) -> Packed:
    """Pack all layers, most wanted first: measured and predicted of measured sections, predicted, then the others.

    A layer that does not fit in what is left of the budget has only its first genes, or is left out.
    """
    values = sum(array.size for slide in content.slides for array in slide.layers.values())
    steps = FINE if values <= COARSE_ABOVE else COARSE
    order, packed, left_out = np.asarray(content.order), [], []
    for number, name in _by_priority(content):
        array = content.slides[number].layers[name][:, order]
        text, genes = _fitting(array, steps, budget)
        if genes < len(order):
            left_out.append(f"{name} of {content.slides[number].name}: {_counted(genes, len(order))}")
        if genes:
            budget -= len(text)
            packed.append(PackedLayer(number, name, genes, text))
    measured = content.reference_expression
    if measured is None:
        return Packed(packed, steps, left_out)
    text, genes = _fitting(measured[:, order], steps, budget)
    if genes < len(order):
        left_out.append(f"measured at the reference tiles: {_counted(genes, len(order))}")
    return Packed(packed, steps, left_out, len(measured), genes, text)


def packed_floats(values: Float[np.ndarray, "..."]) -> str:
    """Return any numbers as text: little-endian float32, deflated, in base64."""
    return _text(np.ascontiguousarray(values, "<f4").tobytes())


def quantise(
    values: Float[np.ndarray, "spot gene"], steps: int
) -> tuple[Float[np.ndarray, "2 gene"], UInt8[np.ndarray, "gene spot"]]:
    """Return each gene's lowest value and step, and the codes: value = lowest + code x step, to half a step."""
    known = ~np.isnan(values)
    low = np.where(known, values, np.inf).min(axis=0, initial=np.inf)
    high = np.where(known, values, -np.inf).max(axis=0, initial=-np.inf)
    low, high = (np.where(known.any(axis=0), one, 0.0) for one in (low, high))
    step = (high - low) / steps
    codes = np.rint((np.nan_to_num(values) - low) / np.where(step > 0, step, 1.0))
    return np.stack([low, step]), np.where(known, codes, MISSING).astype(np.uint8).T


def _by_priority(content: MapContent) -> list[tuple[int, str]]:
    def rank(pair: tuple[int, str]) -> tuple[int, int]:
        layers = content.slides[pair[0]].layers
        return (pair[1] not in (MEASURED, PREDICTED)) * 2 + (MEASURED not in layers), pair[0]

    return sorted(((number, name) for number, slide in enumerate(content.slides) for name in slide.layers), key=rank)


def _fitting(values: Float[np.ndarray, "spot gene"], steps: int, budget: int) -> tuple[str, int]:
    """Return the text of as many of the first genes as fit, and their number."""
    genes = values.shape[1]
    while genes > 0:
        scale, codes = quantise(values[:, :genes], steps)
        text = _text(np.ascontiguousarray(scale, "<f4").tobytes() + np.ascontiguousarray(codes).tobytes())
        if len(text) <= budget:
            return text, genes
        genes = min(genes - 1, int(genes * 0.98 * budget / len(text)))
    return "", 0


def _counted(kept: int, of: int) -> str:
    return f"{kept} of {of} genes are in this file" if kept else "not in this file"


def _text(content: bytes) -> str:
    return base64.b64encode(zlib.compress(content, 6)).decode("ascii")
