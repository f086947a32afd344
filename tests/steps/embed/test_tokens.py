"""Spatial tokens beside the vectors: committed with them exactly once, and read back by slide as they were."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from raystp import tables
from raystp.artifacts import Artifact, ArtifactWriter
from raystp.cluster.streams.units import Encoded, WorkUnit
from raystp.encoders.features.tokens import TokenGrid
from raystp.errors import ArtifactError, ConfigError, EncoderError
from raystp.expression.embeddings.join import features_record, join_embeddings_of
from raystp.expression.embeddings.read import read_embeddings
from raystp.expression.embeddings.tokens import check_token_count, read_tokens
from raystp.expression.sections import embeddings_of
from raystp.steps.embed import step as embed
from raystp.steps.embed.outputs import EncoderOutput
from raystp.steps.embed.work import EmbedWork
from raystp.steps.encoder_source import source_of
from raystp.steps.input_config import EncoderConfig
from raystp.storage import StoragePath
from raystp.units import TilePixels

UNITS = [WorkUnit("S.00000", "S", 0, 3), WorkUnit("S.00001", "S", 3, 2)]
GRID = TokenGrid(2, 3)
HALF = np.finfo(np.float16).max


def _work(
    folder: Path, *, grid: TokenGrid | None = GRID, scales: int = 1, again: frozenset[str] = frozenset()
) -> EmbedWork:
    """Return the work on a slide of five tiles, whose encoder has rows of two numbers."""
    rows = [["S"] * 5, range(5), np.arange(5.0), np.arange(5.0), [8.0] * 5, [f"s{n}" for n in range(5)]]
    (StoragePath.of(folder) / "tile" / "tiles" / "S.parquet").write_table(tables.of_columns(rows, tables.TILES))
    output = EncoderOutput(
        StoragePath.of(folder) / "embed", source_of(EncoderConfig(), "/none"), 2 * scales, tokens=grid
    )
    return EmbedWork(output.path.parent / "tile", (output,), {}, TilePixels(224), "float32", scales, again=again)


def _batches(unit: WorkUnit, add: float = 0.0, sizes: tuple[int, ...] = (1, 2)) -> list[Encoded]:
    """Return vectors (n, 0.1) and tokens 12 n + 0..11 of the tiles n of a unit, in batches."""
    numbers = np.arange(unit.first, unit.first + unit.rows) + add
    parts = np.split(numbers, np.cumsum(sizes)[:-1]) if unit.rows == sum(sizes) else [numbers]
    return [
        (
            np.column_stack([n, np.full(len(n), 0.1)]).astype(np.float32),
            (n[:, None] * 12 + np.arange(12)).astype(np.float16),
        )
        for n in parts
    ]


def _finished(work: EmbedWork, **notes: Any) -> Artifact:
    given = {"units": {"S": [unit.unit for unit in UNITS]}, "precision": "float32", "patients": {"S": "P"}, "tokens": 2}
    seen = {"encoder": {"name": "tiny"}, "side": 8.0, "pixels": 224, "tiles": "/none"}
    return ArtifactWriter(work.outputs[0].path, "embed", "toy", "0", {}, {}).finish({}, [], {**seen, **given, **notes})


def _files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_tokens_are_read_back_by_slide_in_the_order_of_the_vectors(tmp_path: Path) -> None:
    work = _work(tmp_path)
    work.commit(UNITS[1], _batches(UNITS[1]), {})
    work.write_part(UNITS[0], 0, _batches(UNITS[0])[0], {})
    work.write_part(UNITS[0], 1, _batches(UNITS[0])[1], {})
    work.commit_parts(UNITS[0], 2)
    artifact = _finished(work)
    tokens = read_tokens(artifact, "S")
    assert (str(tokens.dtype), tokens.shape) == ("float16", (5, 4, 3))
    assert tokens.reshape(5, 12).tolist() == [[12 * n + value for value in range(12)] for n in range(5)]
    assert tables.matrix(read_embeddings(artifact, "S")["vector"])[:, 0].tolist() == [0, 1, 2, 3, 4]


def test_a_tile_that_cannot_be_read_has_no_tokens(tmp_path: Path) -> None:
    work = _work(tmp_path)
    kept = [tuple(np.delete(column, 1, axis=0) for column in batch) for batch in _batches(UNITS[0], sizes=(3,))]
    work.commit(UNITS[0], kept, {1: "tile 1 is damaged"})
    work.commit(UNITS[1], _batches(UNITS[1]), {})
    assert read_tokens(_finished(work), "S")[:, 0, 0].tolist() == [0, 24, 36, 48]


def test_a_unit_is_committed_once_whatever_a_crash_left_of_it(tmp_path: Path) -> None:
    work = _work(tmp_path)
    work.commit(UNITS[0], _batches(UNITS[0]), {})
    whole = _files(tmp_path)
    assert sorted(whole) == [
        "embed/commits/S.00000.json", "embed/embeddings/S/S.00000.parquet", "embed/tokens/S/S.00000.parquet",
        "tile/tiles/S.parquet",
    ]  # fmt: skip
    for left in ((), ("tokens",), ("tokens", "embeddings"), ("tokens", "embeddings", "commits")):
        for name in {"tokens", "embeddings"} - set(left):
            (tmp_path / "embed" / name / "S" / "S.00000.parquet").unlink()
        if "commits" not in left:
            (tmp_path / "embed" / "commits" / "S.00000.json").unlink()
            assert not work.is_committed(UNITS[0])
        # What is there is kept: another worker's numbers are not taken.
        work.commit(UNITS[0], _batches(UNITS[0], add=100.0 * ("embeddings" in left)), {})
        assert _files(tmp_path) == whole
    _work(tmp_path, again=frozenset({"S.00000"})).commit(UNITS[0], _batches(UNITS[0], add=1), {})
    assert sum(content != whole[name] for name, content in _files(tmp_path).items()) == 3


def test_without_tokens_the_files_are_as_ever_and_asking_for_tokens_names_the_remedy(tmp_path: Path) -> None:
    with_tokens, without = _work(tmp_path / "a"), _work(tmp_path / "b", grid=None)
    for unit in UNITS:
        with_tokens.commit(unit, _batches(unit), {})
        without.commit(unit, [batch[:1] for batch in _batches(unit)], {})
    name = "embed/embeddings/S/S.00000.parquet"
    assert _files(tmp_path / "b")[name] == _files(tmp_path / "a")[name]
    assert not (tmp_path / "b" / "embed" / "tokens").exists()
    artifact = _finished(without, tokens=0)
    with pytest.raises(ArtifactError, match="keeps no spatial tokens: run `raystp embed` with tokens=7"):
        read_tokens(artifact, "S")
    with pytest.raises(ConfigError, match=r"keeps no spatial tokens, and the model reads 49: .* with tokens=7$"):
        check_token_count(artifact, 49)
    with pytest.raises(ConfigError, match=r"keeps 4 spatial tokens .* reads 49: .* or train a model with tokens=4$"):
        check_token_count(_finished(with_tokens), 49)


def test_tokens_of_several_encoders_are_joined_token_by_token(tmp_path: Path) -> None:
    blocks = []
    for number in range(2):
        work = _work(tmp_path / str(number))
        for unit in UNITS:
            work.commit(unit, _batches(unit, add=0.5 * number), {})
        writer = ArtifactWriter(work.outputs[0].path, "embed", f"toy{number}", "0", {}, {})
        blocks.append(writer.finish({}, [], _finished(work).manifest.notes))
    joined = join_embeddings_of(blocks, tokens=4)
    features = tables.matrix(embeddings_of(joined, "S")["vector"])
    first = 12 + np.arange(12).reshape(4, 3)
    assert features[1].tolist() == np.concatenate([first, first + 6], axis=1).ravel().tolist()
    assert features_record(joined)["tokens"] == 4
    assert "tokens" not in features_record(join_embeddings_of(blocks))
    assert tables.matrix(embeddings_of(join_embeddings_of(blocks[:1], tokens=4), "S")["vector"]).shape == (5, 12)


def test_a_place_of_several_sizes_has_the_tokens_of_each(tmp_path: Path) -> None:
    output = _work(tmp_path, scales=2).outputs[0]
    rows = np.arange(4 * 13.0, dtype=np.float32).reshape(4, 13)  # one number of a row, then 12 of tokens
    output = EncoderOutput(output.path, output.source, 2, tokens=GRID)
    vectors, tokens = output.split(rows, 2)
    assert vectors.tolist() == [[0, 13], [26, 39]]
    assert tokens[1].tolist() == [*range(27, 39), *range(40, 52)]
    assert [column.shape for column in output.split(rows[:0], 2)] == [(0, 2), (0, 24)]
    with pytest.raises(EncoderError, match=r"spatial tokens of up to 7e\+04, and they are stored as float16"):
        output.split(np.full((2, 13), -7e4, np.float32), 2)
    assert output.split(np.full((2, 13), HALF, np.float32), 2)[1].max() == HALF


def test_tokens_are_part_of_what_is_computed_and_their_file_is_half_precision(tmp_path: Path) -> None:
    plain, kept = (embed.CONFIG.of({"tiles": "tile/a", "run": {}, **more}) for more in ({}, {"tokens": 7}))
    assert "tokens" not in plain.fingerprint_values()
    assert kept.fingerprint_values()["tokens"] == 7
    for wrong in (0, 65):
        with pytest.raises(ConfigError, match="tokens"):
            embed.CONFIG.of({"tiles": "tile/a", "run": {}, "tokens": wrong})
    work = _work(tmp_path)
    work.commit(UNITS[0], _batches(UNITS[0]), {})
    schema = pq.read_schema(tmp_path / "embed" / "tokens" / "S" / "S.00000.parquet")
    assert (schema.names, str(schema.field("tokens").type.value_type)) == (["tile", "tokens"], "halffloat")
