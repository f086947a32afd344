"""Measured spots joined with their tiles by id and stacked in order; rows of different spots are never mixed."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import anndata as ad
import numpy as np
import pyarrow as pa
import pytest

from raystp import tables
from raystp.artifacts import Artifact, resolve
from raystp.errors import ArtifactError, SectionError
from raystp.expression.schema import write_section
from raystp.expression.sections import embeddings_of, join_embeddings, join_tiles, load_counts
from raystp.expression.training_set import TrainingSetSpec, join_section, load_training_set, stack_sections
from raystp.storage import StoragePath

GENES = ("D", "A")


@pytest.fixture
def spots(toy_store: StoragePath) -> Artifact:
    return resolve(toy_store.uri, "spots/toy", "spots")


@pytest.fixture
def embed(toy_store: StoragePath) -> Artifact:
    return resolve(toy_store.uri, "embed/toy", "embed")


def _rewrite(embed: Artifact, slide: str, change: Callable[[pa.Table], pa.Table]) -> None:
    for unit in embed.manifest.notes["units"][slide]:
        file = embed.path / "embeddings" / slide / f"{unit}.parquet"
        file.write_table(change(file.read_table()))


def test_expression_is_the_log_of_counts_per_10000_of_all_genes(
    spots: Artifact, section: Callable[[str], ad.AnnData]
) -> None:
    counts = load_counts(spots, "S2")
    raw = section("S2").X.toarray()
    expected = np.log1p(raw / raw.sum(axis=1, keepdims=True) * 1e4)
    np.testing.assert_allclose(counts.expression(["D", "A"]), expected[:, [3, 0]], rtol=1e-5)
    np.testing.assert_array_equal(counts.totals, raw.sum(axis=1))
    assert (counts.slide, counts.patient, counts.diameter_px) == ("S2", "P2", 10.0)


def test_an_unmeasured_gene_is_missing_and_does_not_change_others(spots: Artifact) -> None:
    counts = load_counts(spots, "S1")
    with_unknown = counts.expression(["A", "nowhere", "B"])
    assert np.isnan(with_unknown[:, 1]).all()
    np.testing.assert_array_equal(with_unknown[:, [0, 2]], counts.expression(["A", "B"]))


def test_spots_are_joined_with_their_tiles_by_id_not_by_row(spots: Artifact, embed: Artifact) -> None:
    _rewrite(embed, "S2", lambda table: table.take(list(reversed(range(3)))))
    joined = join_embeddings(load_counts(spots, "S2"), embed)
    np.testing.assert_array_equal(
        joined.features, [[1, tile] for tile in range(6)]
    )  # slide 1, tiles in the spots' order
    np.testing.assert_array_equal(joined.boxes[:, :2] + 16, joined.counts.xy)


def test_a_spot_without_a_tile_is_left_out_with_its_counts(spots: Artifact, embed: Artifact) -> None:
    _rewrite(embed, "S1", lambda table: table.slice(1))
    measured = load_counts(spots, "S1")
    joined = join_embeddings(measured, embed)
    assert joined.counts.spots == ["s1", "s2", "s4", "s5"]
    np.testing.assert_array_equal(joined.counts.expression(["A"]), measured.expression(["A"])[[1, 2, 4, 5]])
    np.testing.assert_array_equal(joined.counts.xy, measured.xy[[1, 2, 4, 5]])


def test_tiles_are_joined_like_embeddings(toy_store: StoragePath, spots: Artifact, embed: Artifact) -> None:
    measured = load_counts(spots, "S3")
    tiles = join_tiles(measured, resolve(toy_store.uri, "tile/toy", "tile"))
    np.testing.assert_array_equal(tiles.boxes, join_embeddings(measured, embed).boxes)
    assert tiles.features.shape == (6, 0)


def test_half_precision_embeddings_are_joined_as_float32(
    toy_store: StoragePath, finished: Callable[[StoragePath, str, str, Mapping[str, Any]], Artifact], embed: Artifact
) -> None:
    half = finished(toy_store, "embed", "half", {**embed.manifest.notes, "precision": "float16"})
    table = embeddings_of(embed, "S1")
    columns = [*table.select(tables.TILES.names).columns, tables.vectors(tables.matrix(table["vector"]), "float16")]
    content = tables.of_columns(columns, tables.embeddings(2, precision="float16"))
    for number in range(2):
        (half.path / "embeddings" / "S1" / f"S1.{number:05d}.parquet").write_table(content.slice(3 * number, 3))
    np.testing.assert_array_equal(tables.matrix(embeddings_of(half, "S1")["vector"]), tables.matrix(table["vector"]))


def test_a_grid_without_spots_cannot_be_joined(spots: Artifact, embed: Artifact) -> None:
    nulls = pa.nulls(3, pa.string())
    _rewrite(embed, "S1", lambda table: table.set_column(5, tables.TILES.field("spot"), nulls))
    with pytest.raises(
        SectionError, match=r"none of the 6 spots of section 'S1' has a tile on slide 'S1': tile around"
    ):
        join_embeddings(load_counts(spots, "S1"), embed)


def test_an_unknown_section_or_slide_is_reported_with_the_known_ones(spots: Artifact, embed: Artifact) -> None:
    with pytest.raises(SectionError, match=r"no section 'S9' in the spots \S+; there are S1, S2, S3, S4"):
        load_counts(spots, "S9")
    with pytest.raises(ArtifactError, match=r"slide 'S9' has no embeddings in \S+; there are S1, S2, S3, S4"):
        embeddings_of(embed, "S9")


def test_a_slide_that_failed_to_embed_is_reported_with_its_reason(embed: Artifact) -> None:
    failures = tables.of_rows([{"slide": "S9", "stage": "embed", "reason": "tile 3 is damaged"}], tables.FAILURES)
    (embed.path / "failures.parquet").write_table(failures)
    failed = dataclasses.replace(embed, manifest=dataclasses.replace(embed.manifest, failures=1))
    with pytest.raises(ArtifactError, match=r"slide 'S9' has no embeddings in \S+; it failed: tile 3 is damaged"):
        embeddings_of(failed, "S9")


def test_sections_are_stacked_in_the_requested_order(spots: Artifact, embed: Artifact) -> None:
    both = stack_sections([join_section(spots, embed, name) for name in ("S3", "S1")], GENES)
    alone = [stack_sections([join_section(spots, embed, name)], GENES) for name in ("S3", "S1")]
    assert (both.sections, both.slides, both.group.tolist()) == (("S3", "S1"), ("S3", "S1"), [0] * 6 + [1] * 6)
    for name in ("features", "expression", "boxes", "totals"):
        expected = np.concatenate([getattr(one, name) for one in alone])
        np.testing.assert_array_equal(getattr(both, name), expected)


def _spec(spots: Artifact, embed: Artifact, **changes: Any) -> TrainingSetSpec:
    given: dict[str, Any] = {"train": ("S1", "S2"), "validation": (), "validation_block": 0.0, "genes": GENES}
    return TrainingSetSpec(spots, embed, **{**given, **changes})


def test_without_validation_all_spots_train(spots: Artifact, embed: Artifact) -> None:
    train, held = load_training_set(_spec(spots, embed))
    assert (len(train.spots), held) == (12, None)


def test_validation_sections_do_not_train(spots: Artifact, embed: Artifact) -> None:
    train, held = load_training_set(_spec(spots, embed, validation=("S3",)))
    assert held is not None
    assert (train.sections, held.sections, len(held.spots)) == (("S1", "S2"), ("S3",), 6)


def test_a_section_of_one_spot_trains_and_is_not_divided(
    spots: Artifact, embed: Artifact, section: Callable[[str], ad.AnnData]
) -> None:
    write_section(spots.path / "sections" / "S1.h5ad", section("S1")[:1].copy())
    train, held = load_training_set(_spec(spots, embed, validation_block=0.3))
    assert held is not None
    assert (train.group.tolist(), held.group.tolist()) == ([0, 1, 1, 1, 1], [1, 1])


def test_a_section_whose_genes_have_other_names_is_refused(
    spots: Artifact, embed: Artifact, section: Callable[[str], ad.AnnData]
) -> None:
    other = section("S2")
    other.var_names = [f"gene-{number}" for number in range(4)]
    write_section(spots.path / "sections" / "S2.h5ad", other)
    with pytest.raises(
        SectionError, match=r"'S2' shares 0 of the 2 genes of the panel: .*'D', 'A'.*'gene-0', 'gene-1'"
    ):
        load_training_set(_spec(spots, embed))
    aliases = {"D": ["gene-3"], "A": ["gene-0"]}
    train, _ = load_training_set(_spec(spots, embed, aliases=aliases))
    assert np.isfinite(train.expression).all()


def test_a_validation_block_is_the_same_end_of_each_section_and_does_not_train(
    spots: Artifact, embed: Artifact
) -> None:
    train, held = load_training_set(_spec(spots, embed, validation_block=0.3))
    assert held is not None
    assert held.group.tolist() == [0, 0, 1, 1]  # 2 of 6 spots of each
    np.testing.assert_array_equal(held.boxes[:, 0] + 16, 120)  # the far end, along the longer side
    assert (train.boxes[:, 0] + 16 < 120).all()
    together = {
        (group, spot) for one in (train, held) for group, spot in zip(one.group.tolist(), one.spots, strict=True)
    }
    assert len(together) == len(train.spots) + len(held.spots) == 12
    again, _ = load_training_set(_spec(spots, embed, validation_block=0.3))
    np.testing.assert_array_equal(again.features, train.features)


def test_shuffling_permutes_the_measurements_and_keeps_the_tiles(spots: Artifact, embed: Artifact) -> None:
    train, _ = load_training_set(_spec(spots, embed))
    shuffled = train.shuffled(np.random.default_rng(0))
    np.testing.assert_array_equal(shuffled.features, train.features)
    assert (shuffled.expression != train.expression).any()
    order = [np.flatnonzero((train.expression == row).all(axis=1)) for row in shuffled.expression]
    assert all(found.size for found in order)
    np.testing.assert_array_equal(np.sort(shuffled.totals), np.sort(train.totals))
    np.testing.assert_array_equal(shuffled.expression, train.shuffled(np.random.default_rng(0)).expression)


def test_a_section_of_another_version_is_refused(spots: Artifact, section: Callable[[str], ad.AnnData]) -> None:
    altered = section("S1")
    altered.uns["raystp"]["schema_version"] = 2
    with pytest.raises(
        SectionError, match=r"has section schema version 2, this raystp reads version 1: run `raystp sp"
    ):
        write_section(spots.path / "sections" / "S1.h5ad", altered)
    (spots.path / "sections" / "S1.h5ad").write_file(altered.write_h5ad)
    with pytest.raises(SectionError, match=r"S1.h5ad has section schema version 2"):
        load_counts(spots, "S1")
