"""What made an artifact: the chain of manifests in its store, back to slides and weights.

An artifact names its inputs as `<step>/<name>-<fingerprint>`, and files and weights by digests. Artifacts that were
removed from the store, or copied without their inputs, end the chain.
"""

from typing import Any

import pyarrow as pa

from raystp import tables
from raystp.artifacts import MANIFEST, Artifact, open_artifact
from raystp.errors import ArtifactError, RaystpError
from raystp.steps.inspect.config import ARTIFACTS
from raystp.steps.inspect.report import MadeFrom
from raystp.storage import StoragePath

MAX_CHAIN = 1000
"""Artifacts in one chain at most."""
MAX_MANIFEST = 256 << 20
"""Bytes of a manifest that is read; one of 30,000 slides has about 20 MB."""
_PARENTS = 5
"""Folders above a file in which its artifact's manifest is looked for."""


def artifact_of(path: StoragePath) -> Artifact | None:
    """Return the artifact whose folder this is, or that a file is part of; None if there is none."""
    folder = path
    for _ in range(_PARENTS):
        if (folder / MANIFEST).exists():
            return open_any(folder)
        if folder.parent == folder:
            break
        folder = folder.parent
    return None


def open_any(folder: StoragePath) -> Artifact:
    """Open an artifact of any step. Raises ArtifactError if its manifest is not valid."""
    file = folder / MANIFEST
    if file.exists() and (size := file.size()) > MAX_MANIFEST:
        msg = f"{folder / MANIFEST} has {size} bytes, a manifest has up to {MAX_MANIFEST}: it was not read"
        raise ArtifactError(msg)
    return open_artifact(folder, folder.parent.name)


def chain_of(artifact: Artifact, slide: str | None = None) -> tuple[MadeFrom, ...]:
    """Return the artifact and those that it was made from, each once; of the slides only `slide`, if it is there."""
    store = artifact.path.parent.parent
    chain: dict[str, MadeFrom] = {}
    wanted: list[tuple[str, Artifact | None]] = [(artifact.manifest.folder, artifact)]
    while wanted and len(chain) < MAX_CHAIN:
        what, opened = wanted.pop(0)
        if what in chain:
            continue
        chain[what] = _made(store, what, opened, slide)
        wanted += [(one, None) for one in chain[what].inputs.values() if _is_artifact(one)]
    return tuple(chain.values())


def facts_of(artifact: Artifact) -> dict[str, Any]:
    """Return what a manifest says in short."""
    manifest = artifact.manifest
    facts: dict[str, Any] = {"created": manifest.created, "raystp": manifest.packages.get("raystp", "unknown")}
    facts |= {"rows": manifest.rows, "failures": manifest.failures}
    notes = manifest.notes
    kept = ("encoder", "encoder_identity", "kind", "protocol", "panel", "side", "pixels", "precision", "genes", "test")
    return facts | {name: notes[name] for name in kept if name in notes}


def _is_artifact(what: str) -> bool:
    step, slash, _ = what.partition("/")
    return bool(slash) and step in ARTIFACTS


def _made(store: StoragePath, what: str, artifact: Artifact | None, slide: str | None) -> MadeFrom:
    try:
        opened = artifact or open_any(store / what)
        slides = _slides(opened, slide)
    except RaystpError as error:
        return MadeFrom(what, {"problem": str(error)}, {})
    manifest = opened.manifest
    facts: dict[str, Any] = {"created": manifest.created, **manifest.rows}
    facts |= {"failures": manifest.failures} if manifest.failures else {}
    inputs = {role if _is_artifact(one) else _role(role): one for role, one in manifest.inputs.items()}
    return MadeFrom(what, facts, inputs, slides)


def _role(role: str) -> str:
    """Return the role of a digest in words."""
    return {"encoder": "weights of the encoder", "slides": "digest of the slides", "sections": "digest of files"}.get(
        role, f"digest of {role}"
    )


def _slides(artifact: Artifact, slide: str | None) -> tuple[dict[str, str], ...]:
    """Return the slides of a tile artifact with the ids of their content."""
    if artifact.manifest.step != "tile":
        return ()
    table: pa.Table = artifact.table("slides.parquet", tables.SLIDES, ["slide", "path", "patient", "content"])
    rows: list[dict[str, str]] = table.to_pylist()
    return tuple([row for row in rows if row["slide"] == slide] or rows)
