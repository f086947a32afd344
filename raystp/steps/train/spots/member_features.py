"""Features of an ensemble: the union of what its members read, and the columns of it that each member reads.

    columns of the ensemble  =  block 1 | block 2 | ... | mean over n places of all blocks | mean over m places | ...

A block is one `embed` artifact. Members that read the same encoder, tiles, layers and views share its columns.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Int64

from raystp.artifacts import Artifact, resolve
from raystp.errors import ConfigError
from raystp.expression.embeddings.join import block_widths, blocks_of, features_record
from raystp.steps.embedding_source import compared, describe_block, input_folders, neighbour_means_of, tokens_of

Record = Mapping[str, Any]


@dataclass(frozen=True)
class MemberFeatures:
    """What one member reads."""

    name: str
    """Of the model, for messages."""
    folders: list[str]
    """Its `embed` artifacts, in its order."""
    blocks: list[Record]
    """Encoder and tiles of each."""
    means: list[int]
    """Numbers of neighbours whose mean features follow the blocks."""
    width: int
    """Number of columns."""

    @classmethod
    def of(cls, name: str, inputs: Mapping[str, str], meta: Record, store: str) -> "MemberFeatures":
        """Return what a model reads; a model of an earlier version records no blocks, so its artifacts are opened.

        Raises ConfigError for a model that reads spatial tokens.
        """
        if tokens_of(meta):
            msg = f"{name} reads {tokens_of(meta)} spatial tokens, and an ensemble joins vectors: leave it out, or "
            raise ConfigError(msg + "train it on vectors")
        folders, blocks = input_folders(inputs, "images"), meta.get("features", {}).get("blocks")
        if blocks is None:
            blocks = [block for one in folders for block in features_record(resolve(store, one, "embed"))["blocks"]]
        return cls(name, folders, blocks, neighbour_means_of(meta), int(meta["d_image"]))


def union_folders(members: Sequence[MemberFeatures]) -> list[str]:
    """Return the artifacts of all members in the order of the members, one for each block."""
    found: list[tuple[Record, str]] = []
    for member in members:
        for block, folder in zip(member.blocks, member.folders, strict=True):
            if all(compared(block) != known for known, _ in found):
                found.append((compared(block), folder))
    return [folder for _, folder in found]


def union_means(members: Sequence[MemberFeatures]) -> list[int]:
    """Return the numbers of neighbours of all members, each once."""
    return list(dict.fromkeys(count for member in members for count in member.means))


def member_columns(member: MemberFeatures, images: Artifact, means: Sequence[int]) -> Int64[np.ndarray, " column"]:
    """Return the columns of the joined `images` that a member reads, in its order.

    `means` are those of the union. Raises ConfigError where `images` lack a block of the member.
    """
    slide = next((one for one, units in images.manifest.notes["units"].items() if units), None)
    if slide is None:
        msg = f"embeddings: {images.path} has no tile of any slide: embed again"
        raise ConfigError(msg)
    widths = block_widths(images, slide)
    ends = np.cumsum(widths)
    known = [compared(features_record(one)["blocks"][0]) for one in blocks_of(images)]
    own: list[np.ndarray] = []
    for block in member.blocks:
        if compared(block) not in known:
            given = "; ".join(describe_block(features_record(one)["blocks"][0]) for one in blocks_of(images))
            msg = f"embeddings: {member.name} reads {describe_block(block)}, and there are {given}: add its artifact"
            raise ConfigError(msg)
        number = known.index(compared(block))
        own.append(np.arange(ends[number] - widths[number], ends[number], dtype=np.int64))
    blocks = np.concatenate(own)
    offsets = [0, *((1 + list(means).index(count)) * int(ends[-1]) for count in member.means)]
    columns = np.concatenate([blocks + offset for offset in offsets])
    if len(columns) != member.width:
        msg = f"{member.name} reads {member.width} features, and its embeddings have {len(columns)}: embed again"
        raise ConfigError(msg)
    return columns
