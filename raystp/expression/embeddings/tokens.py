"""Read the spatial tokens that `embed` keeps beside the vectors, as plain arrays by slide."""

import numpy as np
from jaxtyping import Float16

from raystp import tables
from raystp.artifacts import Artifact
from raystp.errors import ArtifactError, ConfigError
from raystp.expression.embeddings.read import units_of

Tokens = Float16[np.ndarray, "tile token channel"]


def token_count(embed: Artifact) -> int:
    """Return the number of tokens that embeddings keep of each place: rows x columns x sizes of tiles; 0 for none."""
    notes = embed.manifest.notes
    return int(notes.get("tokens", 0)) ** 2 * len(notes.get("scales", [0]))


def read_tokens(embed: Artifact, slide: str) -> Tokens:
    """Return the spatial tokens of a slide, in the order of its embeddings; row by row of the grid.

    With several sizes of tiles, the tokens of the first size come first. Memory: two bytes a value, 98 KiB a tile for
    49 tokens of 1,024 channels. Raises ArtifactError for embeddings without tokens, and for a damaged table.
    """
    count = token_count(embed)
    if not count:
        msg = f"{embed.path} keeps no spatial tokens: run `raystp embed` with tokens=7 (7 x 7 of each tile)"
        raise ArtifactError(msg)
    folder, units = units_of(embed, slide, "tokens")
    parts = []
    for unit in units:
        file = folder / f"{unit}.parquet"
        table = file.read_table()
        values = table.schema.field("tokens").type.list_size if "tokens" in table.column_names else count
        tables.check(table.schema, tables.tokens(values), str(file))
        if values % count:
            msg = f"{file} has {values} values a tile, which are not {count} tokens: a damaged or altered file"
            raise ArtifactError(msg)
        flat = table["tokens"].combine_chunks().flatten().to_numpy(zero_copy_only=False)
        parts.append(flat.reshape(table.num_rows, count, values // count))
    return np.concatenate(parts) if parts else np.empty((0, count, 1), np.float16)


def check_token_count(embed: Artifact, count: int) -> None:
    """Raise ConfigError unless embeddings keep `count` tokens of each place."""
    kept = token_count(embed)
    if kept == count:
        return
    has = f"keeps {kept} spatial tokens of each place" if kept else "keeps no spatial tokens"
    side = round(count**0.5)
    remedy = f"tokens={side}" if side**2 == count else f"a grid of {count} places in all"
    msg = f"embeddings: {embed.path} {has}, and the model reads {count}: run `raystp embed` with {remedy}"
    raise ConfigError(msg + (f", or train a model with tokens={kept}" if kept else ""))
