"""The order of the slides, the number of workers and the size of batches change no tile and no embedding."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from raystp import tables
from raystp.artifacts import Artifact, resolve
from raystp.expression.sections import embeddings_of
from raystp.steps.embed import step as embed
from raystp.steps.tile import step as tile
from tests.faults import cohort
from tests.faults.cohort import SLIDES, TILING, UNIT_TILES

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.faults]

CPUS = 0.25
"""Logical CPUs of an actor: four share the local Ray with Ray Data's own tasks."""
RESOURCES: list[dict[str, Any]] = [
    {"encoders": 1, "batch_tiles": 1},
    {"encoders": 2, "batch_tiles": 64},
    {"encoders": 4, "batch_tiles": 3},
    {"encoders": 4, "batch_tiles": 1, "readers": 2},
]


def _embedded(store: Path, tiles: Artifact, **run: Any) -> dict[str, tuple[list[int], np.ndarray]]:
    """Return tile numbers and vectors of each slide."""
    values = {"tiles": tiles.path.uri, "unit_tiles": UNIT_TILES, "run": {"store": str(store), **run}}
    made = embed.run(embed.CONFIG.of(values))
    found = {slide: embeddings_of(made, slide) for slide in SLIDES}
    return {slide: (one["tile"].to_pylist(), tables.matrix(one["vector"])) for slide, one in found.items()}


def _tiles(slides: Path, store: Path, order: list[str]) -> Artifact:
    store.mkdir()
    table = cohort.table(store / "slides.csv", {slide: str(slides / f"{slide}.svs") for slide in order})
    tile.run(tile.CONFIG.of({"slides": table, **TILING, "run": {"store": str(store)}}))
    return resolve(str(store), "tile/default", "tile")


def test_shuffled_slides_and_any_workers_and_batches_give_the_same_rows(ray_session: None, tmp_path: Path) -> None:  # noqa: ARG001 -- Ray must be up
    slides = tmp_path / "slides"
    cohort.draw(slides)
    first = _tiles(slides, tmp_path / "sorted", list(SLIDES))
    expected = _embedded(tmp_path / "sorted", first, encoders=1, batch_tiles=2, cpus_per_encoder=CPUS)
    for number, run in enumerate(RESOURCES):
        store = tmp_path / f"shuffled{number}"
        order: list[str] = np.random.default_rng(number).permutation(SLIDES).tolist()
        tiles = _tiles(slides, store, order)
        found = _embedded(store, tiles, cpus_per_encoder=CPUS, **run)
        for slide in SLIDES:
            name = f"tiles/{slide}.parquet"
            assert tiles.table(name, tables.TILES).equals(first.table(name, tables.TILES))
            assert found[slide][0] == expected[slide][0]
            np.testing.assert_allclose(found[slide][1], expected[slide][1], atol=1e-5)
