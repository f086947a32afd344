"""What is asked of the service and what it answers, apart from how either travels."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Protocol, TypeVar, runtime_checkable

import numpy as np
import pydantic_core
from jaxtyping import Bool, Float32, Float64, Int64
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from raystp.cluster.serving.auth import RequestRefused
from raystp.errors import RaystpError, some

SHOWN_FAULTS = 5


class RequestOptions(BaseModel):
    """What is wanted for the tiles; the same in JSON, in Arrow's metadata and in a query string."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, use_attribute_docstrings=True)

    genes: list[str] | None = None
    """By name, in the order of the answer; all where none are named."""
    k: int = Field(default=50, ge=1)
    """Neighbours to average."""
    weights: str = "mean"
    """How the neighbours are weighed; `/v1/info` names the ways."""
    spread: bool = False
    """Also the weighted standard deviation of the neighbours, per gene."""
    neighbours: bool = False
    """Also who the neighbours are."""
    without: list[str] = []
    """Patients whose rows are left out of the search."""


class SlideRegion(BaseModel):
    """Tiles side by side on a slide."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=True, allow_inf_nan=False, use_attribute_docstrings=True
    )

    x: float
    """Left edge, in level-0 px."""
    y: float
    """Upper edge, in level-0 px."""
    tiles: Annotated[list[Annotated[int, Field(ge=1, le=100_000)]], Field(min_length=2, max_length=2)] = [1, 1]
    """How many across and how many down."""
    side: float | None = Field(default=None, gt=0)
    """A tile's side in um; by default the service's."""
    mpp: float | None = Field(default=None, gt=0)
    """um/px of the scan, where the slide does not say."""


class JsonRequest(RequestOptions):
    """The body in JSON: one of `embeddings`, `pixels`, `slide` with `region`, and what is wanted."""

    embeddings: list[list[float]] | None = None
    """A row per tile, as the model's image encoder gives them."""
    pixels: list[str] | None = None
    """A PNG or JPEG per tile, in base64."""
    slide: str | None = None
    """A slide under one of the service's folders."""
    region: SlideRegion | None = None


@dataclass(frozen=True)
class ImputeRequest:
    """A question; exactly one of `features`, `pictures` and `slide` is given."""

    options: RequestOptions
    features: Float32[np.ndarray, "tile feature"] | None = None
    pictures: Sequence[str] | None = None
    slide: str | None = None
    region: SlideRegion | None = None

    @property
    def tiles(self) -> int:
        """How many tiles are asked about."""
        if self.features is not None:
            return len(self.features)
        if self.pictures is not None:
            return len(self.pictures)
        return self.region.tiles[0] * self.region.tiles[1] if self.region else 0


@dataclass(frozen=True)
class ResponseNeighbours:
    """The neighbours of each tile, best first."""

    rows: Int64[np.ndarray, "tile k"]
    weights: Float32[np.ndarray, "tile k"]
    sections: list[list[str]]
    spots: list[list[str]]


@dataclass(frozen=True)
class ImputeResponse:
    """An answer: a line per tile, a column per gene."""

    genes: list[str]
    expression: Float32[np.ndarray, "tile gene"]
    distance: Float32[np.ndarray, " tile"]
    far: Bool[np.ndarray, " tile"]
    spread: Float32[np.ndarray, "tile gene"] | None = None
    neighbours: ResponseNeighbours | None = None
    squares: Float64[np.ndarray, "tile 3"] | None = None
    """x, y and side in level-0 px, of tiles that were read from a slide."""

    def json(self) -> bytes:
        """Return this as JSON."""
        arrays = {"expression": self.expression, "distance": self.distance, "far": self.far}
        arrays |= {"spread": self.spread} if self.spread is not None else {}
        arrays |= {"squares": self.squares} if self.squares is not None else {}
        values: dict[str, Any] = {"genes": self.genes} | {name: array.tolist() for name, array in arrays.items()}
        if self.neighbours is not None:
            near = self.neighbours
            values["neighbours"] = {
                "rows": near.rows.tolist(),
                "weights": near.weights.tolist(),
                "sections": near.sections,
                "spots": near.spots,
            }
        return pydantic_core.to_json(values)


@runtime_checkable
class PreparedRequest(Protocol):
    """A question that was checked, with all that it needs read."""

    @property
    def tiles(self) -> int:
        """How many tiles it is about."""


R = TypeVar("R", bound=PreparedRequest)


@runtime_checkable
class RequestHandler(Protocol[R]):
    """What a replica holds, and all that it knows."""

    def about(self) -> dict[str, Any]:
        """Return what `/v1/info` says, as plain JSON values; `genes` is a list of names."""

    def prepare(self, asked: ImputeRequest) -> R:
        """Check a question by itself and read what it names; raises RaystpError, StorageError for what is not there."""

    def answer(self, ready: list[R]) -> list[ImputeResponse | RaystpError]:
        """Answer questions together, each as if it were alone."""


@dataclass(frozen=True)
class RequestLimits:
    """How much one question may ask for."""

    tiles: int
    k: int
    genes: int
    values: int
    """Tiles times genes."""

    def check(self, asked: ImputeRequest, genes: int) -> None:
        """Raise Refused where a question is too large; `genes` is how many an answer has where none are named."""
        options = asked.options
        wanted = genes if options.genes is None else len(options.genes)
        if asked.tiles > self.tiles:
            raise RequestRefused(413, f"{asked.tiles:,} tiles were sent, at most {self.tiles:,} are answered at a time")
        if options.k > self.k:
            raise RequestRefused(422, f"k: {options.k} neighbours were asked for, at most {self.k} are searched")
        if wanted > self.genes:
            raise RequestRefused(
                422, f"genes: {wanted:,} were asked for, at most {self.genes:,} are answered at a time"
            )
        if wanted * asked.tiles > self.values:
            msg = f"{asked.tiles:,} tiles x {wanted:,} genes are more than {self.values:,} values: name fewer of either"
            raise RequestRefused(422, msg)


def from_json(content: bytes) -> ImputeRequest:
    """Return the question that a body in JSON asks; raises Refused, 400 where it is no JSON, 422 where it is amiss."""
    question = _read(JsonRequest, content)
    given = [name for name in ("embeddings", "pixels", "slide") if getattr(question, name) is not None]
    if len(given) != 1 or (question.slide is None) != (question.region is None):
        seen = ", ".join([*given, *(["region"] if question.region else [])]) or "none"
        raise RequestRefused(422, f"one of `embeddings`, `pixels`, or `slide` with `region` is wanted, got {seen}")
    options = RequestOptions.model_construct(**{name: getattr(question, name) for name in RequestOptions.model_fields})
    features = None if question.embeddings is None else _matrix(question.embeddings)
    return ImputeRequest(options, features, question.pixels, question.slide, question.region)


def options_of(values: dict[str, Any]) -> RequestOptions:
    """Return options from plain values; raises Refused."""
    return _read(RequestOptions, pydantic_core.to_json(values))


M = TypeVar("M", bound=BaseModel)


def _read(form: type[M], content: bytes) -> M:
    try:
        return form.model_validate_json(content)
    except ValidationError as error:
        faults = error.errors(include_url=False, include_context=False, include_input=False)
        if faults[0]["type"] == "json_invalid":
            raise RequestRefused(
                400, f"the body is not JSON: {faults[0]['msg'].removeprefix('Invalid JSON: ')}"
            ) from None
        told = [f"{'.'.join(map(str, one['loc'])) or 'the body'}: {one['msg']}" for one in faults[:SHOWN_FAULTS]]
        more = f"; and {len(faults) - len(told)} more" if len(faults) > len(told) else ""
        raise RequestRefused(422, "; ".join(told) + more) from None


def _matrix(rows: list[list[float]]) -> Float32[np.ndarray, "tile feature"]:
    widths = sorted({len(row) for row in rows})
    if len(widths) > 1:
        raise RequestRefused(
            422, f"embeddings: every tile has a row of one length, seen lengths {some([*map(str, widths)])}"
        )
    with np.errstate(over="ignore"):  # what float32 cannot hold is infinite, and said to be
        return np.asarray(rows, np.float64).astype(np.float32).reshape(len(rows), widths[0] if widths else 0)
