"""Predict a slide in one of Ray's processes: read its tiles chunk by chunk, predict, and write the files."""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pyarrow as pa
from jaxtyping import Bool, Float32

from raystp import tables
from raystp.artifacts import Artifact
from raystp.errors import ArtifactError
from raystp.expression.sections import ModelLabels, embeddings_of
from raystp.impute.calibration import Calibration
from raystp.impute.imputer import FoundNeighbours, Imputed, NeighborImputer
from raystp.impute.matrices import MatrixForm
from raystp.impute.neighbours import neighbours_table, rows_and_weights
from raystp.impute.stream import PredictionPart, SlidePrediction, write_in_parts
from raystp.index.open import open_reference_index
from raystp.index.queries import is_far
from raystp.index.remote import RemoteIndex
from raystp.models.predict import predict_slide
from raystp.models.predictor import BagEmbedder, ContrastivePredictor, DirectPredictor, MapPredictor
from raystp.models.store import load_model
from raystp.steps.impute.bags import allowed_rows, whole_bag
from raystp.steps.impute.tiles import tile_table
from raystp.steps.train.reference import may_lack_values, open_model
from raystp.storage import StoragePath
from raystp.storage.attempt_ledger import MAX_CRASHES, AttemptLedger
from raystp.tables import MAPS

Distance = Float32[np.ndarray, " tile"]
Chunk = tuple[pa.Table, FoundNeighbours, Distance]


@dataclass(frozen=True)
class PredictOptions:
    """Options of each slide's prediction."""

    k: int | Literal["all"]
    weights: str
    exact: bool
    genes: list[str] | None
    spread: bool
    output: str
    without: dict[str, list[str]]
    protocol: str
    chunk_tiles: int
    temperature: float | None = None
    calibrate: bool = False
    """Whether the model's calibration is applied."""
    x: MatrixForm = "float32"


@dataclass(frozen=True)
class SlideTask:
    """The artifacts and options with which any slide of a cohort is predicted: a `SlideWork`."""

    model: Artifact
    embeddings: Artifact
    index: Artifact | None
    spots: Artifact | None
    neighbours: Artifact | None
    """Neighbours that an earlier run stored."""
    options: PredictOptions
    left_out: dict[str, str]
    """Slide -> its patient, whose rows of the index are excluded from its search."""
    target: StoragePath
    remote: RemoteIndex | None = None
    """The index, where actors have its shards."""

    @property
    def attempts(self) -> AttemptLedger:
        """Markers of the slides that are being predicted."""
        return AttemptLedger(self.target / "attempts")

    def rows(self, slide: str) -> int | None:
        """Return the number of tiles of a slide that is done, else None."""
        record = self.target / "commits" / f"{slide}.json"
        return int(json.loads(record.read_bytes())["rows"]) if record.exists() else None

    def unpredicted(self, slide: str) -> int:
        """Return how many values of a slide that is done have no prediction."""
        record = self.target / "commits" / f"{slide}.json"
        return int(json.loads(record.read_bytes()).get("unpredicted", 0)) if record.exists() else 0

    def far(self, slide: str) -> int | None:
        """Return how many tiles of a slide that is done are far from the reference; None where that is unknown."""
        found: int | None = json.loads((self.target / "commits" / f"{slide}.json").read_bytes()).get("far")
        return found

    def begin(self, slide: str) -> str:
        """Write a marker; return a message where this slide has crashed too many processes."""
        if host := self.attempts.begin(slide):
            return (
                f"Slide {slide!r} crashed {MAX_CRASHES} workers (last on {host}), probably out of memory; skipped. "
                "Lower run.chunk_tiles or choose fewer genes, then rerun with run.retry_failed=true"
            )
        return ""

    def end(self, slide: str) -> None:
        """Remove the markers."""
        self.attempts.end(slide)

    def make_worker(self) -> Callable[[str], int]:
        """Open the model and the index; return a function that predicts a slide and commits it."""
        predict = SlidePredictor(self)

        def predict_and_commit(slide: str) -> int:
            rows = predict(slide)
            record = {"rows": rows, "unpredicted": predict.unpredicted, "far": predict.far}
            (self.target / "commits" / f"{slide}.json").write_bytes(json.dumps(record).encode())
            return rows

        return predict_and_commit


class SlidePredictor:
    """A model, and an index where it needs one, opened once; predict and write slides."""

    def __init__(self, task: SlideTask) -> None:
        self._task, self._options = task, task.options
        kind, arrays, meta = load_model(task.model.path)
        self._model, self._labels = open_model(kind, arrays, meta), ModelLabels.of(meta)
        self.unpredicted = 0
        """Values of the last slide without a prediction, because no neighbour has measured the gene."""
        self.far: int | None = None
        """Tiles of the last slide that are far from the reference; None where no distance of the reference is known."""
        self._genes = task.options.genes or list(self._model.genes)
        self._distance_quantiles: dict[str, float] | None = None
        if isinstance(self._model, ContrastivePredictor):
            assert task.index is not None  # checked before the first slide
            notes = task.index.manifest.notes
            index = task.remote or open_reference_index(task.index.path, notes["bank"])
            fitted = Calibration.from_json(meta["calibration"]) if task.options.calibrate else None
            options = task.options
            self._imputer = NeighborImputer(self._model, index, options.weights, options.temperature, fitted)
            self._columns = self._imputer.columns(task.options.genes)
            if not isinstance(self._model, BagEmbedder):  # the recorded distances are of whole bags then
                self._distance_quantiles = notes.get("distance")
        else:
            column_of = {gene: column for column, gene in enumerate(self._model.genes)}
            self._columns = None if task.options.genes is None else np.asarray([column_of[g] for g in self._genes])

    def __call__(self, slide: str) -> int:
        """Predict a slide, write its files, and return its number of tiles.

        Raises ArtifactError for a slide without embeddings, and for one without a tile.
        """
        tiles, self.unpredicted, self.far = embeddings_of(self._task.embeddings, slide), 0, None
        if not tiles.num_rows:
            msg = (
                f"slide '{slide}' has no tile in {self._task.embeddings.path}: nothing can be predicted; see the "
                "failures of its `tile` artifact, and run `raystp tile` and `raystp embed` again"
            )
            raise ArtifactError(msg)
        if self._options.output == "neighbours":
            self._write_neighbours(slide, tiles)
        else:
            self._write_dense(slide, tiles)
        return int(tiles.num_rows)

    def _write_neighbours(self, slide: str, tiles: pa.Table) -> None:
        """Write the neighbours of a slide's tiles, and their weights unless these are equal."""
        equal, k = self._options.weights == "mean", self._options.k
        k = 1 if k == "all" else k  # of all rows, only `top1` has a list
        parts = [tables.neighbours(k, weights=None if equal else "float16").empty_table()]
        for chunk, found, distance in self._search(slide, tiles):
            parts.append(neighbours_table(chunk, found.rows, distance, None if equal else found.weights))
        (self._task.target / "neighbours" / f"{slide}.parquet").write_table(pa.concat_tables(parts))

    def _write_dense(self, slide: str, tiles: pa.Table) -> None:
        """Write a slide's expression as parquet, with a row group per chunk, and as AnnData."""
        table, measured = tile_table(
            slide, tiles, self._genes, embeddings=self._task.embeddings, spots=self._task.spots, labels=self._labels
        )
        layers: tuple[str, ...] = MAPS if isinstance(self._model, MapPredictor) else ()
        if isinstance(self._model, ContrastivePredictor) and self._options.spread:
            layers = ("spread",)
        var = self._slide_expression(slide, tiles)
        contrastive = isinstance(self._model, ContrastivePredictor)
        missing = self._imputer.index.measured is not None if contrastive else may_lack_values(self._model)
        form = self._options.x
        prediction = SlidePrediction(self._genes, table, self._provenance(), measured, layers, var, missing, form)
        parts = self._predict_from_index(slide, tiles) if contrastive else self._predict_directly(tiles)
        target, schema = self._task.target, tables.predictions(len(self._genes))
        parquet, h5ad = target / "predictions" / f"{slide}.parquet", target / "anndata" / f"{slide}.h5ad"
        write_in_parts(prediction, parts, parquet=(parquet, schema), h5ad=h5ad)

    def _chunks(self, tiles: pa.Table) -> Iterator[pa.Table]:
        step = self._options.chunk_tiles
        return (tiles.slice(first, step) for first in range(0, tiles.num_rows, step))

    def _search(self, slide: str, tiles: pa.Table) -> Iterator[Chunk]:
        """Yield chunks of tiles with their neighbours."""
        options, allowed = self._options, self._allowed_rows(slide)
        k = 1 if options.k == "all" else options.k
        for chunk in self._chunks(tiles):
            found = self._imputer.find(tables.matrix(chunk["vector"]), k, allowed=allowed, exact=options.exact)
            yield chunk, found, self._imputer.distance(found)

    def _impute(self, slide: str, tiles: pa.Table) -> Iterator[tuple[pa.Table, Imputed]]:
        """Yield chunks of tiles with their predictions, from a search or from stored neighbours."""
        options, imputer = self._options, self._imputer
        if self._task.neighbours is not None:
            for chunk, found, distance in self._read_neighbours(slide):
                yield chunk, imputer.impute_from(found, distance, self._columns, spread=options.spread)
            return
        allowed = self._allowed_rows(slide)
        for chunk in self._chunks(tiles):
            features = tables.matrix(chunk["vector"])
            yield (
                chunk,
                imputer.impute(
                    features,
                    options.k,
                    genes=self._columns,
                    spread=options.spread,
                    allowed=allowed,
                    exact=options.exact,
                ),
            )

    def _read_neighbours(self, slide: str) -> Iterator[Chunk]:
        """Yield chunks of tiles with the neighbours that an earlier run stored."""
        assert self._task.neighbours is not None  # called only then
        file = self._task.neighbours.path / "neighbours" / f"{slide}.parquet"
        for chunk in self._chunks(file.read_table()):
            rows, weights = rows_and_weights(chunk)
            no_scores = np.empty((len(rows), 0), np.float32)
            yield chunk, FoundNeighbours(no_scores, rows, weights), chunk["distance"].to_numpy()

    def _allowed_rows(self, slide: str) -> Bool[np.ndarray, " row"] | None:
        """Return the mask of index rows for a slide's search; None for all."""
        return allowed_rows(self._imputer.index, self._options.without, self._task.left_out.get(slide))

    def _predict_from_index(self, slide: str, tiles: pa.Table) -> Iterator[PredictionPart]:
        for chunk, imputed in self._impute(slide, tiles):
            self.unpredicted += int(np.isnan(imputed.expression).sum())
            obs: dict[str, np.ndarray] = {"distance": imputed.distance}
            if self._distance_quantiles is not None:
                obs["far"] = is_far(imputed.distance, self._distance_quantiles)
                self.far = (self.far or 0) + int(obs["far"].sum())
            layers = {} if imputed.spread is None else {"spread": imputed.spread}
            yield PredictionPart(imputed.expression, _tile_columns(chunk), obs, layers)

    def _predict_directly(self, tiles: pa.Table) -> Iterator[PredictionPart]:
        if not tiles.num_rows:
            return
        features = tables.matrix(tiles["vector"])
        boxes = np.stack([tiles[name].to_numpy() for name in ("x", "y", "side")], axis=1)
        assert isinstance(self._model, DirectPredictor)  # any model that is not contrastive
        expression = self._select_genes(predict_slide(self._model, features, boxes))
        self.unpredicted += int(np.isnan(expression).sum())
        maps = self._model.maps(features) if isinstance(self._model, MapPredictor) else {}
        layers = {name: np.ascontiguousarray(self._select_genes(maps[name])) for name in MAPS if name in maps}
        yield PredictionPart(expression, _tile_columns(tiles), {}, layers)

    def _select_genes(self, values: Float32[np.ndarray, "tile gene"]) -> Float32[np.ndarray, "tile gene"]:
        return values if self._columns is None else np.ascontiguousarray(values[:, self._columns])

    def _slide_expression(self, slide: str, tiles: pa.Table) -> dict[str, np.ndarray]:
        """Return the expression of a slide as a whole, of a model with maps or one that embeds bags."""
        features = tables.matrix(tiles["vector"])
        if isinstance(self._model, BagEmbedder):
            options, allowed = self._options, self._allowed_rows(slide)
            bag = whole_bag(self._imputer)
            found = bag.impute(features, options.k, genes=self._columns, allowed=allowed, exact=options.exact)
            return {"slide": found.expression[0]}
        if not isinstance(self._model, MapPredictor):
            return {}
        whole = self._model.predict_bag(features)
        return {"slide": whole if self._columns is None else whole[self._columns]}

    def _provenance(self) -> dict[str, object]:
        task = self._task
        provenance = {
            "model": task.model.manifest.folder,
            "protocol": task.options.protocol,
            "schema_version": 1,
        }
        return provenance if task.index is None else {**provenance, "index": task.index.manifest.folder}


def _tile_columns(chunk: pa.Table) -> dict[str, pa.Array]:
    return {name: chunk[name].combine_chunks() for name in tables.TILES.names}
