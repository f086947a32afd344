"""Arrays as text in the page: values of a gene are steps of its own range, deflated and in base64.

The browser inflates a layer when it is first shown (`DecompressionStream`). A step is 1/254 of a gene's range in the
slide, or 1/62 or 1/30 where there are many values. The last code is a missing value.
"""

import base64
import zlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int64, UInt8

from raystp.evaluate.report.viewer.content import MEASURED, PREDICTED, MapContent

MISSING = 255
"""Code of a value that is missing."""

STEPS = ((10_000_000, 254), (20_000_000, 62), (None, 30))
"""Most values of all layers, and the steps of a gene's range up to there."""

FINE = STEPS[0][1]

BUDGET = 8_000_000
"""Most bytes of all layers in the page, so that with Bokeh, pictures and charts it stays below 15 MB."""


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

    Layers of a group that do not fit in what is left of the budget have only their first genes, or are left out.
    """
    values = sum(array.size for slide in content.slides for array in slide.layers.values())
    steps = next(steps for most, steps in STEPS if most is None or values <= most)
    order, packed, left_out = np.asarray(content.order), list[PackedLayer](), list[str]()
    for group in _by_priority(content):
        layers = _group(content, group, order, steps=steps, budget=budget)
        budget -= sum(len(one.text) for one in layers)
        packed += [one for one in layers if one.genes]
        for one in layers:
            if one.genes < len(order):
                left_out.append(f"{one.layer} of {content.slides[one.slide].name}: {_counted(one.genes, len(order))}")
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


def _by_priority(content: MapContent) -> list[list[tuple[int, str]]]:
    """Return slide and layer in groups: measured sections, predictions of other slides, all other layers."""
    every = [(number, name) for number, slide in enumerate(content.slides) for name in slide.layers]
    measured = {number for number, slide in enumerate(content.slides) if MEASURED in slide.layers}
    values = [pair for pair in every if pair[1] in (MEASURED, PREDICTED)]
    groups = [pair for pair in values if pair[0] in measured], [pair for pair in values if pair[0] not in measured]
    return [*groups, [pair for pair in every if pair not in values]]


def _group(
    content: MapContent, group: list[tuple[int, str]], order: Int64[np.ndarray, "gene"], *, steps: int, budget: int
) -> list[PackedLayer]:
    """Pack some layers; if they do not fit in the budget together, all have the same first genes."""

    def packed(genes: int) -> list[PackedLayer]:
        arrays = [content.slides[number].layers[name][:, order[:genes]] for number, name in group]
        texts = [_packed_text(array, steps) if genes else "" for array in arrays]
        return [PackedLayer(number, name, genes, text) for (number, name), text in zip(group, texts, strict=True)]

    genes = len(order)
    layers = packed(genes)
    while genes and (size := sum(len(one.text) for one in layers)) > budget:
        genes = min(genes - 1, int(genes * 0.98 * budget / size))
        layers = packed(genes)
    return layers


def _fitting(values: Float[np.ndarray, "spot gene"], steps: int, budget: int) -> tuple[str, int]:
    """Return the text of as many of the first genes as fit, and their number."""
    genes = values.shape[1]
    while genes > 0:
        text = _packed_text(values[:, :genes], steps)
        if len(text) <= budget:
            return text, genes
        genes = min(genes - 1, int(genes * 0.98 * budget / len(text)))
    return "", 0


def _packed_text(values: Float[np.ndarray, "spot gene"], steps: int) -> str:
    scale, codes = quantise(values, steps)
    return _text(np.ascontiguousarray(scale, "<f4").tobytes() + np.ascontiguousarray(codes).tobytes())


def _counted(kept: int, of: int) -> str:
    return f"{kept} of {of} genes are in this file" if kept else "not in this file"


def _text(content: bytes) -> str:
    return base64.b64encode(zlib.compress(content, 6)).decode("ascii")
