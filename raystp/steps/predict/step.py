"""predict: slides + a trained or published model -> tiles, embeddings and expression, as the model's card says.

    <slide>.h5ad    a prediction per slide
    slides.csv      slide, patient, tiles, um/px, encoder, model, share of far tiles, problem
    summary.md      the same in words, with the model's protocol, scores and licence

Each part is an artifact of its own step, so an interrupted prediction continues where it stopped.
"""

import math
from collections.abc import Iterator, Sequence
from typing import Any

from raystp.artifacts import Artifact, ArtifactWriter, create_or_open, without_secrets
from raystp.cluster.session import session
from raystp.errors import ConfigError, some
from raystp.evaluate.protocols import protocol_of
from raystp.planned import plan_only
from raystp.steps.embed import step as embed
from raystp.steps.embedding_source import tokens_of
from raystp.steps.impute import step as impute
from raystp.steps.impute.checks import check_fields
from raystp.steps.impute.slide_table import SLIDES_CSV, slides_csv
from raystp.steps.predict.config import PredictConfig
from raystp.steps.predict.delivery import check_delivery, deliver, written_slides
from raystp.steps.predict.model import PredictModel, open_model
from raystp.steps.predict.results import (
    SUMMARY,
    PredictParts,
    link_predictions,
    slide_results,
)
from raystp.steps.predict.summary import summary_md
from raystp.steps.tile import step as tile
from raystp.storage import StoragePath

STEP = "predict"
CONFIG = PredictConfig


def run(config: PredictConfig) -> Artifact:
    """Predict every slide; one that fails, or whose patient trained the model, is a row of the failures table."""
    model = open_model(config)
    _check(config, model)
    if config.out is not None:
        StoragePath.of(config.out).check_writable("output", "out")
    with session(config.run.address):
        parts = _parts(config, model)
    inputs: dict[str, Artifact | str] = {"tiles": parts.tiles[0], "model": model.artifacts.model}
    inputs |= {"predictions": parts.predictions} if parts.predictions is not None else {}
    writer = create_or_open(config, STEP, inputs)
    artifact = _finish(writer, config, model, parts) if isinstance(writer, ArtifactWriter) else writer
    if config.out is not None:
        deliver(artifact, StoragePath.of(config.out))
    return artifact


def plan(config: PredictConfig) -> Iterator[str]:
    """Yield what is read, and whether the tiles are done; the other parts follow from the tiles."""
    model = open_model(config)
    _check(config, model)
    yield f"reads slides: {without_secrets(config.slides)}"
    yield f"reads model: {model.artifacts.model.path}"
    tiles = plan_only(lambda: _tile(config, model))
    yield f"tile: {'not done, writes' if tiles.finished is None else 'done already,'} {tiles.path}"
    yield "then: embed, impute, predict"
    if config.out is not None:
        yield f"writes {without_secrets(config.out)}"


def _check(config: PredictConfig, model: PredictModel) -> None:
    """Raise ConfigError, before any slide is read, for a field that a later part would refuse.

    These are the fields of each step, genes that the model does not predict, a retrieval that it cannot do, and an
    output folder whose files are somebody else's.
    """
    config.of_step(tile, config.tile, {"slides": config.slides})
    config.of_step(embed, config.embed, {"tiles": "tile/planned"})
    decided = {"embeddings": "embed/planned", "model": "train/planned", "protocol": config.protocol}
    index = None if model.artifacts.index is None else "index/planned"
    planned = config.of_step(impute, config.impute, {**decided, "index": index, "genes": config.genes})
    if config.protocol is not None:
        protocol_of(config.protocol)
    genes: list[str] = model.meta["genes"]
    if unknown := sorted(set(config.genes or ()) - set(genes)):
        msg = f"genes: {model.name} does not predict {some(unknown)}; it has {len(genes)} genes, {some(genes)}"
        raise ConfigError(msg)
    check_fields(planned, model.meta)
    if config.out is not None:
        written_slides(StoragePath.of(config.out))


def _parts(config: PredictConfig, model: PredictModel) -> PredictParts:
    """Run the steps; a step that would have no slide is left out."""
    tiles = _tile(config, model)
    if config.out is not None:
        check_delivery(StoragePath.of(config.out), PredictParts(tiles).known_slides())
    if not all(one.manifest.rows["tiles"] for one in tiles):
        return PredictParts(tiles)
    embeddings: list[Artifact] = []
    for number in range(len(model.blocks)):
        embeddings.append(_embed(config, model, tiles[number], number))
        if not embeddings[-1].manifest.notes["patients"]:
            return PredictParts(tiles, embeddings)
    return PredictParts(tiles, embeddings, _impute(config, model, embeddings))


def _tile(config: PredictConfig, model: PredictModel) -> list[Artifact]:
    """Return the tiles of each block; blocks with tiles of as many px share them."""
    found: dict[int, Artifact] = {}
    for block in model.blocks:
        if block.tile_px in found:
            continue
        decided = {
            "name": config.name if not found else f"{config.name[:56]}-{block.tile_px}px",
            "slides": config.slides,
            "root": config.root,
            "masks": config.masks,
            "tile_um": list(block.tile_um) if len(block.tile_um) > 1 else block.tile_um[0],
            "tile_px": block.tile_px,
        }
        found[block.tile_px] = tile.run(config.of_step(tile, config.tile, decided))
    return [found[block.tile_px] for block in model.blocks]


def _embed(config: PredictConfig, model: PredictModel, tiles: Artifact, number: int) -> Artifact:
    block, encoder = model.blocks[number], model.encoders[number]
    decided = {
        "name": config.name if not number else f"{config.name[:60]}-{number + 1}",
        "tiles": tiles.path.uri,
        "encoder": encoder.model_dump(mode="json"),
        "layers": list(block.layers),
        "views": block.views,
        "tokens": math.isqrt(tokens_of(model.meta)) or None,
        "precision": block.precision,
    }
    return embed.run(config.of_step(embed, config.embed, decided))


def _impute(config: PredictConfig, model: PredictModel, embeddings: Sequence[Artifact]) -> Artifact:
    index, paths = model.artifacts.index, [one.path.uri for one in embeddings]
    decided: dict[str, Any] = {
        "name": config.name,
        "embeddings": paths if len(paths) > 1 else paths[0],
        "model": model.artifacts.model.path.uri,
        "index": None if index is None else index.path.uri,
        "genes": config.genes,
        "protocol": config.protocol,
    }
    return impute.run(config.of_step(impute, config.impute, decided))


def _finish(writer: ArtifactWriter, config: PredictConfig, model: PredictModel, parts: PredictParts) -> Artifact:
    failures = parts.failures()
    results = slide_results(model, parts, failures)
    protocol = model.meta["protocol"]
    if parts.predictions is not None:
        protocol = parts.predictions.manifest.notes["protocol"]
        link_predictions(parts.predictions, writer.path)
    genes = len(config.genes or model.meta["genes"])
    summary = summary_md(model, results, protocol_of(protocol), folder=writer.folder, genes=genes)
    (writer.path / SLIDES_CSV).write_bytes(slides_csv(results))
    (writer.path / SUMMARY).write_bytes(summary.encode())
    counts = {"slides": len(parts.done), "tiles": sum(one.tiles for one in results)}
    notes = {"slides": parts.done, "model": model.name, "protocol": protocol, "genes": genes}
    return writer.finish(counts, failures, notes)
