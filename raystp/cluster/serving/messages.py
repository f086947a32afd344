"""Requests and responses of the service, independent of JSON or Arrow; parsing of JSON requests; limits."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Protocol, TypedDict, TypeVar, runtime_checkable

import numpy as np
import pydantic_core
from jaxtyping import Bool, Float32, Float64, Int64
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from raystp.cluster.serving.asgi import RequestRefused
from raystp.config_fields.values import NeighbourCount
from raystp.errors import LONGEST, RaystpError, some

MAX_ERRORS_SHOWN = 5


class RequestOptions(BaseModel):
    """Options of a request: the same in JSON, in Arrow's metadata and in a query string."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, use_attribute_docstrings=True)

    genes: list[str] | None = None
    """Genes to predict, in the order of the response; by default all."""
    k: NeighbourCount | None = None
    """Neighbours to average, or `all` rows; by default the model's own, as the next two: `/v1/info`, `retrieval`."""
    weights: str | None = None
    """How neighbours are weighted; `/v1/info` lists the choices."""
    temperature: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    """Of the weights `softmax` and `weighted_average`."""
    spread: bool = False
    """Also return the weighted standard deviation among the neighbours, per gene."""
    neighbours: bool = False
    """Also return the neighbours."""
    without: list[str] = []
    """Patients whose rows are excluded from the search."""


class SlideRegion(BaseModel):
    """A grid of adjacent tiles on a slide."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=True, allow_inf_nan=False, use_attribute_docstrings=True
    )

    x: float
    """Left edge, in level-0 px."""
    y: float
    """Upper edge, in level-0 px."""
    tiles: Annotated[list[Annotated[int, Field(ge=1, le=100_000)]], Field(min_length=2, max_length=2)] = [1, 1]
    """Number of tiles across and down."""
    tile_um: float | None = Field(default=None, gt=0)
    """Tile side in um; if given, it must be that of the model's tiles."""
    mpp: float | None = Field(default=None, gt=0)
    """um/px of the scan, for a slide whose file does not state it."""


class JsonRequest(RequestOptions):
    """A request's JSON body: options, and one of `embeddings`, `pixels`, or `slide` with `region`."""

    embeddings: list[list[float]] | None = None
    """A row per tile, from the model's image encoder."""
    pixels: list[str] | None = None
    """A PNG or JPEG per tile, in base64."""
    slide: str | None = None
    """A slide in one of the service's folders."""
    region: SlideRegion | None = None


@dataclass(frozen=True)
class ImputeRequest:
    """Predict expression at tiles: exactly one of `features`, `images` and `slide` is set."""

    options: RequestOptions
    features: Float32[np.ndarray, "tile feature"] | None = None
    images: Sequence[str] | None = None
    """PNG or JPEG files in base64."""
    slide: str | None = None
    region: SlideRegion | None = None

    @property
    def tiles(self) -> int:
        """Number of tiles."""
        if self.features is not None:
            return len(self.features)
        if self.images is not None:
            return len(self.images)
        return self.region.tiles[0] * self.region.tiles[1] if self.region else 0


@dataclass(frozen=True)
class ResponseNeighbours:
    """The neighbours of each tile, nearest first."""

    rows: Int64[np.ndarray, "tile k"]
    weights: Float32[np.ndarray, "tile k"]
    sections: list[list[str]]
    spots: list[list[str]]


@dataclass(frozen=True)
class ImputeResponse:
    """Predicted expression: a row per tile, a column per gene."""

    genes: list[str]
    expression: Float32[np.ndarray, "tile gene"]
    distance: Float32[np.ndarray, " tile"]
    """Of the nearest row of the index; NaN without an index."""
    far: Bool[np.ndarray, " tile"]
    spread: Float32[np.ndarray, "tile gene"] | None = None
    neighbours: ResponseNeighbours | None = None
    tile_boxes: Float64[np.ndarray, "tile 3"] | None = None
    """x, y and side in level-0 px, of tiles read from a slide."""

    def to_json(self) -> bytes:
        """Return the response as JSON; a value without a prediction (NaN) is null."""
        arrays: dict[str, np.ndarray] = {"expression": self.expression, "distance": self.distance, "far": self.far}
        arrays |= {"spread": self.spread} if self.spread is not None else {}
        arrays |= {"tile_boxes": self.tile_boxes} if self.tile_boxes is not None else {}
        values: dict[str, object] = {"genes": self.genes} | {name: array.tolist() for name, array in arrays.items()}
        if self.neighbours is not None:
            values["neighbours"] = {
                "rows": self.neighbours.rows.tolist(),
                "weights": self.neighbours.weights.tolist(),
                "sections": self.neighbours.sections,
                "spots": self.neighbours.spots,
            }
        return pydantic_core.to_json(values, inf_nan_mode="null")


@runtime_checkable
class PreparedRequest(Protocol):
    """A validated request with its pixels or features loaded."""

    @property
    def tiles(self) -> int:
        """Number of tiles."""


R = TypeVar("R", bound=PreparedRequest)


class HandlerInfo(TypedDict):
    """The part of `/v1/info` that every handler has; a handler adds keys with plain JSON values."""

    genes: list[str]
    versions: dict[str, str]
    """Package -> version; one is `raystp`."""


@runtime_checkable
class RequestHandler(Protocol[R]):
    """A replica's model: prepares requests and predicts batches of them."""

    def info(self) -> HandlerInfo:
        """Return the body of `/v1/info`, without the limits."""

    def prepare(self, request: ImputeRequest) -> R:
        """Validate a request and load its tiles; raise RaystpError, and StorageError for an unknown slide."""

    def impute(self, requests: list[R]) -> list[ImputeResponse | RaystpError]:
        """Predict a batch; each result is the same as for its request alone."""


@dataclass(frozen=True)
class RequestLimits:
    """Upper bounds of one request."""

    tiles: int
    k: int
    genes: int
    values: int
    """Tiles times genes."""

    def check(self, request: ImputeRequest, default_genes: int) -> None:
        """Raise RequestRefused for a request that is too large; without `genes` it counts as `default_genes`."""
        options, tiles = request.options, request.tiles
        genes = default_genes if options.genes is None else len(options.genes)
        if tiles > self.tiles:
            raise RequestRefused(413, f"{tiles:,} tiles were sent, the limit is {self.tiles:,} per request")
        if isinstance(options.k, int) and options.k > self.k:
            raise RequestRefused(422, f"k: {options.k} neighbours were requested, the limit is {self.k}")
        if genes > self.genes:
            raise RequestRefused(422, f"genes: {genes:,} were requested, the limit is {self.genes:,} per request")
        if genes * tiles > self.values:
            msg = (
                f"{tiles:,} tiles x {genes:,} genes exceed the limit of {self.values:,} values: request fewer of either"
            )
            raise RequestRefused(422, msg)


def from_json(content: bytes) -> ImputeRequest:
    """Parse a JSON body; raise RequestRefused: 400 for text that is not JSON, 422 for invalid fields."""
    body = _parse(JsonRequest, content)
    given = [name for name in ("embeddings", "pixels", "slide") if getattr(body, name) is not None]
    if len(given) != 1 or (body.slide is None) != (body.region is None):
        found = ", ".join([*given, *(["region"] if body.region else [])]) or "none"
        raise RequestRefused(422, f"give exactly one of `embeddings`, `pixels`, or `slide` with `region`; got {found}")
    options = RequestOptions.model_construct(**{name: getattr(body, name) for name in RequestOptions.model_fields})
    features = None if body.embeddings is None else _matrix(body.embeddings)
    return ImputeRequest(options, features, body.pixels, body.slide, body.region)


def parse_options(values: Mapping[str, object]) -> RequestOptions:
    """Return options from plain values; raise RequestRefused (422) for invalid ones."""
    return _parse(RequestOptions, pydantic_core.to_json(values))


M = TypeVar("M", bound=BaseModel)


def _parse(model: type[M], content: bytes) -> M:
    try:
        return model.model_validate_json(content)
    except ValidationError as error:
        errors = error.errors(include_url=False, include_context=False, include_input=False)
        if errors[0]["type"] == "json_invalid":
            reason = errors[0]["msg"].removeprefix("Invalid JSON: ")
            raise RequestRefused(400, f"the body is not JSON: {reason}") from None
        shown = [f"{_where(one['loc'])}: {one['msg'][:LONGEST]}" for one in errors[:MAX_ERRORS_SHOWN]]
        more = f"; and {len(errors) - len(shown)} more" if len(errors) > len(shown) else ""
        raise RequestRefused(422, "; ".join(shown) + more) from None


def _where(places: tuple[int | str, ...]) -> str:
    """Return the field of a fault; an unknown field has its sender's name, of any length."""
    return ".".join(map(str, places))[:LONGEST] or "the body"


def _matrix(rows: list[list[float]]) -> Float32[np.ndarray, "tile feature"]:
    lengths = sorted({len(row) for row in rows})
    if len(lengths) > 1:
        msg = f"embeddings: all rows must have the same length, got lengths {some([*map(str, lengths)])}"
        raise RequestRefused(422, msg)
    with np.errstate(over="ignore"):  # a value beyond float32 becomes infinite, and is refused later
        return np.asarray(rows, np.float64).astype(np.float32).reshape(len(rows), lengths[0] if lengths else 0)
