"""The viewer as two pieces of HTML: what the page's head needs, and the maps with their arrays.

Nothing in them comes from outside unescaped: names are in JSON in which `<` is escaped, and the scripts set text only.
Bokeh's own scripts (`interactive.bokeh_script`) must be in the page once, before the body.
"""

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from bokeh.embed import components
from bokeh.palettes import Cividis256, PuOr11, Viridis256, interp_palette
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from PIL import Image

from raystp.evaluate.report.interactive import script_json
from raystp.evaluate.report.parts import ViewerPart
from raystp.evaluate.report.viewer.content import MEASURED, PREDICTED, SPREAD, MapContent, MapSlide, ReferenceTile
from raystp.evaluate.report.viewer.fewer import with_fewer_pictures
from raystp.evaluate.report.viewer.figures import Widgets, viewer_document
from raystp.evaluate.report.viewer.packing import BUDGET, Packed, pack, packed_floats
from raystp.tables import ATTENTION_MAP, CONTRIBUTION_MAP

TEMPLATES = Path(__file__).parent / "templates"
PICTURES = 2_000_000
"""Most bytes of all pictures of tiles, before base64."""

MARGIN = 2.0
"""Spot diameters (or tile sides) of tissue shown around the outermost spots."""

PALETTES: Mapping[str, Sequence[str]] = {
    "value": Viridis256,
    "error": interp_palette(PuOr11, 255),
    "doubt": Cividis256,
}
"""All are safe for colour-blind readers: none has red beside green."""


@dataclass(frozen=True)
class Layer:
    """A layer that can be chosen."""

    name: str
    title: str
    unit: str
    palette: str
    digits: int = 2
    """Decimals of a value that is shown."""


def viewer(content: MapContent) -> ViewerPart:
    """Return the interactive maps of a model's slides."""
    content, dropped = with_fewer_pictures(content, PICTURES)
    layers, packed = _layers(content), pack(content, BUDGET)
    genes = [content.genes[column] for column in content.order]
    first = [content.genes[column] for column in content.first]
    widgets = Widgets.of(
        [*genes, *content.sets], first, [one.name for one in content.slides], [one.title for one in layers]
    )
    document, roots = viewer_document(widgets, [one.name for one in layers], layers[0].unit)
    script, places = components(roots)
    del document  # it has held the callbacks until here
    stored = {f"maps-{one.slide}-{one.layer}": one.text for one in packed.layers} | _places(content)
    stored |= {"maps-references": packed.reference_text} if packed.reference_genes else {}
    environment = Environment(loader=FileSystemLoader(TEMPLATES), autoescape=True, undefined=StrictUndefined)
    style = (TEMPLATES / "viewer.css").read_text(encoding="utf-8")
    body = environment.get_template("viewer.html.j2").render(
        model=content.model,
        places={name: Markup(place) for name, place in places.items()},
        script=Markup(script),
        data=script_json(_page_data(content, layers, packed)),
        stored=stored,
        left_out=[*packed.left_out, *dropped],
        steps=packed.steps,
    )
    return ViewerPart(Markup("<style>{}</style>").format(Markup(style)), Markup(body))


def _layers(content: MapContent) -> list[Layer]:
    """Return the layers that any of the slides has, in the order of the choices."""
    unit = content.unit
    known = {name for slide in content.slides for name in slide.layers}
    has_distance = any(one.distance is not None for one in content.slides)
    limited = any(one.far_beyond is not None for one in content.slides)
    far = "1 = farther than 99 % of the reference's own tiles" if limited else "distance"
    layers = [
        (MEASURED in known, Layer(MEASURED, "measured", unit, "value")),
        (PREDICTED in known, Layer(PREDICTED, "predicted", unit, "value")),
        (MEASURED in known, Layer("error", "error (predicted - measured)", unit, "error")),
        (SPREAD in known, Layer(SPREAD, "spread among the neighbours", unit, "doubt")),
        (
            has_distance,
            Layer(
                "far",
                "distance to the reference (far above 1)" if limited else "distance to the reference",
                far,
                "doubt",
            ),
        ),
        (ATTENTION_MAP in known, Layer(ATTENTION_MAP, "attention weight", "share", "value", 5)),
        (CONTRIBUTION_MAP in known, Layer(CONTRIBUTION_MAP, "contribution", unit, "value", 5)),
    ]
    return [layer for exists, layer in layers if exists]


def _page_data(content: MapContent, layers: Sequence[Layer], packed: Packed) -> dict[str, object]:
    place = {column: number for number, column in enumerate(content.order)}
    return {
        "references": [_reference(one) for one in content.references],
        "measured": {"genes": packed.reference_genes, "tiles": packed.references},
        "genes": [content.genes[column] for column in content.order],
        "sets": [
            {"name": name, "genes": [place[column] for column in genes.tolist()]}
            for name, genes in content.sets.items()
        ],
        "unit": content.unit,
        "layers": [vars(one) for one in layers],
        "palettes": PALETTES,
        "slides": [
            _slide_data(slide, {one.layer: one.genes for one in packed.layers if one.slide == number})
            for number, slide in enumerate(content.slides)
        ],
    }


def _slide_data(slide: MapSlide, kept: Mapping[str, int]) -> dict[str, object]:
    return {
        "name": slide.name,
        "note": slide.note,
        "shape": slide.shape,
        "image": _jpeg(slide),
        "width": float(slide.thumbnail.width),
        "height": float(slide.thumbnail.height),
        "size": float(slide.size),
        "spots": len(slide.xy),
        "names": None if slide.spots is None else list(slide.spots),
        "view": _view(slide),
        "layers": {name: kept.get(name, 0) for name in slide.layers},
        "distance": slide.distance is not None,
        "beyond": slide.far_beyond,
        "scored": slide.scores is not None,
        "nearest": 0 if slide.nearest is None else slide.nearest.tiles.shape[1],
        "pictures": None if slide.pictures is None else [_data_uri(one) for one in slide.pictures],
        ATTENTION_MAP: ATTENTION_MAP in slide.layers,
    }


def _places(content: MapContent) -> dict[str, str]:
    """Return centres, distances and scores of each slide as text."""
    stored, order = {}, np.asarray(content.order)
    for number, slide in enumerate(content.slides):
        stored[f"maps-{number}-xy"] = packed_floats(np.asarray(slide.xy).T)
        if slide.distance is not None:
            stored[f"maps-{number}-distance"] = packed_floats(slide.distance)
        if slide.scores is not None:
            rows = np.stack([slide.scores.pcc, slide.scores.low, slide.scores.high])
            sets = np.arange(len(content.genes), rows.shape[1])
            stored[f"maps-{number}-scores"] = packed_floats(rows[:, np.concatenate([order, sets])])
        if slide.nearest is not None:
            pair = slide.nearest.tiles.T, slide.nearest.distance.T
            stored[f"maps-{number}-nearest"] = packed_floats(np.stack(pair))
    return stored


def _view(slide: MapSlide) -> list[float]:
    """Return left, top, right, bottom of the spots with a margin, inside the slide."""
    border = MARGIN * slide.size
    low = np.maximum(np.min(slide.xy, axis=0) - border, 0.0)
    high = np.minimum(np.max(slide.xy, axis=0) + border, (slide.thumbnail.width, slide.thumbnail.height))
    return [*low.tolist(), *high.tolist()]


def _reference(tile: ReferenceTile) -> dict[str, str | None]:
    picture = None if tile.picture is None else _data_uri(tile.picture)
    return {"section": tile.section, "patient": tile.patient, "spot": tile.spot, "picture": picture}


def _jpeg(slide: MapSlide) -> str:
    buffer = io.BytesIO()
    Image.fromarray(slide.thumbnail.pixels).save(buffer, format="JPEG", quality=85)
    return _data_uri(buffer.getvalue())


def _data_uri(jpeg: bytes) -> str:
    return f"data:image/jpeg;base64,{base64.b64encode(jpeg).decode('ascii')}"
