"""Read embeddings: one artifact, or several of the same places joined into one.

Joined embeddings have the rows of the first artifact whose place has a tile in every other. Measured spots match by
their id, tiles of a grid by their centre. The features of the artifacts are concatenated in the given order.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pyarrow as pa
from jaxtyping import Float32, Float64, Int64

from raystp import tables
from raystp.artifacts import Artifact, open_artifact
from raystp.errors import ConfigError, some
from raystp.expression.embeddings.read import centres_of, match_places, read_embeddings, read_places
from raystp.expression.embeddings.tokens import check_token_count, read_tokens

Features = Float32[np.ndarray, "tile feature"]
Context = Callable[[Features, Float64[np.ndarray, "tile 2"]], Features]
"""Features and centres (level-0 px) of all tiles of a slide -> further features of the same tiles."""

MIN_SHARE = 0.5
"""Least share of a slide's tiles that must have a tile in every other artifact."""


@dataclass(frozen=True)
class JoinedEmbeddings(Artifact):
    """Several embeddings of the same places, as one. Path, name and tiles are those of the first."""

    blocks: tuple[Artifact, ...] = ()
    neighbour_means: tuple[int, ...] = ()
    """Numbers of tiles whose mean features `context` appends, each over all columns of the blocks."""
    tokens: int = 0
    """Spatial tokens of each place, which are read instead of the vectors, one after the other; 0 for vectors."""
    context: Context | None = field(default=None, compare=False)

    def failures(self) -> pa.Table:
        """Return the failures of all artifacts."""
        return pa.concat_tables([block.failures() for block in self.blocks])

    def read(self, slide: str) -> pa.Table:
        """Return a slide's joined embeddings in the table's schema; raises ConfigError where the places differ."""
        parts = [read_embeddings(block, slide) for block in self.blocks]
        rows = self._rows(slide, parts)
        boxes = parts[0].select(tables.TILES.names).take(pa.array(rows[0]))
        features = self._tokens(slide, rows) if self.tokens else _vectors(parts, rows)
        if self.context is not None and len(features):
            features = np.concatenate([features, self.context(features, centres_of(boxes))], axis=1)
        columns = [column.combine_chunks() for column in boxes.columns]
        schema = tables.embeddings(features.shape[1])
        return pa.Table.from_arrays([*columns, tables.vectors(features)], schema=schema)

    def _tokens(self, slide: str, rows: Sequence[Int64[np.ndarray, "tile"]]) -> Features:
        """Return the tokens of the places: the channels of the artifacts are concatenated, token by token."""
        own = [read_tokens(block, slide)[row] for block, row in zip(self.blocks, rows, strict=True)]
        tokens = np.concatenate(own, axis=2, dtype=np.float32)
        return tokens.reshape(len(tokens), -1)

    def count(self, slide: str) -> int:
        """Return the number of a slide's joined tiles; the vectors are not read."""
        return len(self._rows(slide, [read_places(block, slide) for block in self.blocks])[0])

    def _rows(self, slide: str, parts: Sequence[pa.Table]) -> list[Int64[np.ndarray, "tile"]]:
        """Return the row of each common place in each artifact, in the order of the first one."""
        found = [match_places(parts[0], part) for part in parts[1:]]
        kept = np.ones(parts[0].num_rows, bool)
        for rows in found:
            kept &= rows >= 0
        if kept.sum() < MIN_SHARE * len(kept):
            msg = (
                f"embeddings: only {kept.sum()} of the {len(kept)} tiles of slide '{slide}' in {self.path} have a tile "
                f"at the same place in {some([str(block.path) for block in self.blocks[1:]])}: embed tiles of the same "
                "spots, or of one grid; `tile_um: [..]` of `raystp tile` makes several sizes around each place"
            )
            raise ConfigError(msg)
        return [np.flatnonzero(kept), *(rows[kept] for rows in found)]


def _vectors(parts: Sequence[pa.Table], rows: Sequence[Int64[np.ndarray, "tile"]]) -> Features:
    own = [tables.matrix(part["vector"])[row] for part, row in zip(parts, rows, strict=True)]
    return np.concatenate(own, axis=1)


def join_embeddings_of(
    blocks: Sequence[Artifact], *, neighbour_means: Sequence[int] = (), context: Context | None = None, tokens: int = 0
) -> Artifact:
    """Return embeddings as one; a single artifact without `context` and `tokens` is returned as it is.

    With `tokens`, the features of a place are so many spatial tokens, one after the other, instead of its vector.
    Slides that are in every artifact remain. Raises ConfigError where there are none, where a slide has another patient
    or another image in one of them, and for an artifact that is listed twice.
    """
    first = blocks[0]
    for block in blocks if tokens else ():
        check_token_count(block, tokens)
    if len(blocks) == 1 and context is None and not tokens:
        return first
    folders = [block.manifest.folder for block in blocks]
    if len(set(folders)) < len(folders):
        msg = f"embeddings: an artifact is listed twice in {', '.join(folders)}"
        raise ConfigError(msg)
    patients = dict(first.manifest.notes["patients"])
    for block in blocks[1:]:
        patients = _common(patients, first, block)
    notes = first.manifest.notes
    units = {slide: notes["units"][slide] for slide in patients}
    failures = sum(block.manifest.failures for block in blocks)
    manifest = replace(first.manifest, failures=failures, notes={**notes, "patients": patients, "units": units})
    return JoinedEmbeddings(first.path, manifest, tuple(blocks), tuple(neighbour_means), tokens, context)


def blocks_of(embed: Artifact) -> tuple[Artifact, ...]:
    """Return the artifacts that are joined, or the one."""
    return embed.blocks if isinstance(embed, JoinedEmbeddings) else (embed,)


def input_roles(role: str, embed: Artifact) -> dict[str, Artifact]:
    """Return the artifacts by role, for a fingerprint: `role`, `role 2`, `role 3` and so on."""
    return {role if not number else f"{role} {number + 1}": one for number, one in enumerate(blocks_of(embed))}


def features_record(embed: Artifact) -> dict[str, Any]:
    """Return what the columns are, for a model's record: encoder and tiles of each block, and the neighbours' mean.

    `neighbour_mean` is 0 for none, a number of neighbours, or a list of several numbers. Where the columns are spatial
    tokens, their number is `tokens`.
    """
    means, tokens = (embed.neighbour_means, embed.tokens) if isinstance(embed, JoinedEmbeddings) else ((), 0)
    recorded = means[0] if len(means) == 1 else list(means) or 0
    record = {"blocks": [_block_record(one) for one in blocks_of(embed)], "neighbour_mean": recorded}
    return {**record, "tokens": tokens} if tokens else record


def block_widths(embed: Artifact, slide: str) -> list[int]:
    """Return the number of columns of each block, from the first file of a slide that has tiles."""
    return [_width(block, block.manifest.notes["units"][slide][0], slide) for block in blocks_of(embed)]


def _width(block: Artifact, unit: str, slide: str) -> int:
    schema = (block.path / "embeddings" / slide / f"{unit}.parquet").read_schema()
    return int(schema.field("vector").type.list_size)


def _common(patients: Mapping[str, str], first: Artifact, block: Artifact) -> dict[str, str]:
    """Return the slides that are in both, with their patients."""
    others = block.manifest.notes["patients"]
    common = {slide: patient for slide, patient in patients.items() if slide in others}
    if not common:
        msg = f"embeddings: {first.path} and {block.path} have no slide in common"
        raise ConfigError(msg)
    contents = [_contents(one) for one in (first, block)]
    for slide, patient in common.items():
        if others[slide] != patient:
            msg = f"embeddings: slide '{slide}' is of patient {patient!r} in {first.path}, and of {others[slide]!r} in "
            raise ConfigError(msg + str(block.path))
        if contents[0].get(slide) != contents[1].get(slide) and all(slide in one for one in contents):
            msg = f"embeddings: slide '{slide}' of {first.path} and of {block.path} are different images: embed again"
            raise ConfigError(msg)
    return common


def _contents(embed: Artifact) -> dict[str, str]:
    """Return slide -> id of its image; empty where the tiles are gone."""
    path = embed.noted(embed.manifest.notes["tiles"])
    if not path.exists():
        return {}
    slides = open_artifact(path, "tile").table("slides.parquet", tables.SLIDES, ["slide", "content"])
    return dict(zip(slides["slide"].to_pylist(), slides["content"].to_pylist(), strict=True))


def _block_record(embed: Artifact) -> dict[str, Any]:
    notes = embed.manifest.notes
    return {
        "embeddings": embed.manifest.name,
        "encoder": notes["encoder"],
        "encoder_identity": notes.get("encoder_identity"),
        "tile": {"side": notes["side"], "pixels": notes["pixels"]},
        **{key: notes[key] for key in ("scales", "layers", "views") if key in notes},
    }
