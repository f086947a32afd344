"""Where a bank is cut into shards."""

import itertools

from raystp.errors import ModelError


def cut(rows: int, shards: int) -> list[tuple[int, int]]:
    """Return `shards` row ranges (first, end) that follow each other and differ in size by at most one, larger first.

    Raises ModelError where a shard would be empty. A shard pays from about 100,000 rows; below, one shard is faster.
    """
    if not 1 <= shards <= rows:
        msg = f"{rows} rows cannot be cut into {shards} shards without an empty one: 1 to {rows} shards would do"
        raise ModelError(msg)
    size, larger = divmod(rows, shards)
    starts = [shard * size + min(shard, larger) for shard in range(shards + 1)]
    return list(itertools.pairwise(starts))


def cut_by_bytes(rows: int, bytes_a_row: int, most: int) -> list[tuple[int, int]]:
    """Return the fewest ranges, cut as `cut` does, of which none has more than `most` bytes.

    A row's bytes are those of its vector (4 a dimension; about as much again in lists of float32, half in float16) and
    of its expression. Raises ModelError where one row is more than that.
    """
    if most < bytes_a_row:
        msg = f"a row of {bytes_a_row:,} bytes does not fit into a shard of at most {most:,}: {bytes_a_row:,} would do"
        raise ModelError(msg)
    return cut(rows, -(-rows // (most // bytes_a_row)))
