"""Artifacts: what a step leaves behind, and how the next one finds it.

An artifact is a folder `<store>/<step>/<name>-<fingerprint>/` with its data and a `manifest.json` that is written
LAST: a folder without one is unfinished and can be resumed. The fingerprint covers what is computed (the config
without its `run` part, the inputs' fingerprints, digests of files), never how wide, so equal work lands in the same
place and is not done twice.

A config names an input as `<step>/<name>` (the newest finished artifact of that name in the store) or as the path or
URI of the artifact's folder.
"""

import datetime as dt
import hashlib
import importlib.metadata
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import pyarrow as pa

from raystp import tables
from raystp.config import R, StepConfig
from raystp.errors import ArtifactError
from raystp.storage import StoragePath

MANIFEST = "manifest.json"
SCHEMA_VERSION = 1
"""Version of the manifest and of the layout of an artifact's folder."""

PACKAGES = ("raystp", "ray", "torch", "timm", "numpy", "pyarrow", "anndata", "openslide-python")


@dataclass(frozen=True)
class Manifest:
    """What an artifact is, where it came from, and what is missing from it."""

    step: str
    name: str
    fingerprint: str
    inputs: dict[str, str] = field(default_factory=dict)
    """Role of each input -> `<step>/<name>-<fingerprint>`, or a digest for a plain file."""
    config: dict[str, Any] = field(default_factory=dict)
    packages: dict[str, str] = field(default_factory=dict)
    rows: dict[str, int] = field(default_factory=dict)
    failures: int = 0
    notes: dict[str, Any] = field(default_factory=dict)
    """What the step wants its readers to know, as plain JSON values (shapes, genes, sections)."""
    statistics: dict[str, Any] = field(default_factory=dict)
    """How the run that finished it went: times and rates, which differ where the result does not."""
    created: str = ""
    schema_version: int = SCHEMA_VERSION

    @property
    def folder(self) -> str:
        """The artifact's path under its store: `<step>/<name>-<fingerprint>`."""
        return f"{self.step}/{self.name}-{self.fingerprint}"


@dataclass(frozen=True)
class Artifact:
    """A finished artifact: its folder and its manifest."""

    path: StoragePath
    manifest: Manifest

    def table(self, name: str, schema: pa.Schema, columns: list[str] | None = None) -> pa.Table:
        """Read one of its tables after checking that it is the wanted one, in the wanted version."""
        file = self.path / name
        tables.check(file.read_schema(), schema, str(file))
        return file.read_table(columns)

    def failures(self) -> pa.Table:
        """Return its failures table; without failures, an empty one."""
        if not self.manifest.failures:
            return tables.FAILURES.empty_table()
        return self.table("failures.parquet", tables.FAILURES)


@dataclass(frozen=True)
class ArtifactWriter:
    """An artifact in the making: a folder, and what is known before the work."""

    path: StoragePath
    step: str
    name: str
    fingerprint: str
    inputs: dict[str, str]
    config: dict[str, Any]

    @property
    def folder(self) -> str:
        """The artifact's path under its store: `<step>/<name>-<fingerprint>`."""
        return f"{self.step}/{self.name}-{self.fingerprint}"

    def finish(
        self,
        rows: Mapping[str, int],
        failures: list[dict[str, object]],
        notes: Mapping[str, Any] | None = None,
        statistics: Mapping[str, Any] | None = None,
    ) -> Artifact:
        """Write the failures table, by slide, then the manifest, last: from here on the artifact exists."""
        if not failures:
            (self.path / "failures.parquet").remove()  # of before a second try
        else:
            by_slide = sorted(failures, key=lambda row: str(row["slide"]))
            (self.path / "failures.parquet").write_table(tables.of_rows(by_slide, tables.FAILURES))
        manifest = Manifest(
            step=self.step,
            name=self.name,
            fingerprint=self.fingerprint,
            inputs=self.inputs,
            config=self.config,
            packages=_packages(),
            rows=dict(rows),
            failures=len(failures),
            notes=dict(notes or {}),
            statistics=dict(statistics or {}),
            created=dt.datetime.now(dt.UTC).isoformat(timespec="microseconds"),
        )
        (self.path / MANIFEST).write_bytes(json.dumps(asdict(manifest), indent=1, sort_keys=True).encode())
        return Artifact(self.path, manifest)


def digest_of(values: Any) -> str:
    """Return 16 hexadecimal digits for plain JSON values."""
    return hashlib.sha256(json.dumps(values, sort_keys=True, allow_nan=False).encode()).hexdigest()[:16]


def fingerprint(step: str, what: Mapping[str, Any], inputs: Mapping[str, str]) -> str:
    """Return 12 hexadecimal digits that name this work: step, config without `run`, inputs, and the schema version."""
    text = json.dumps([SCHEMA_VERSION, step, what, dict(inputs)], sort_keys=True, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def create_or_open(config: StepConfig[R], step: str, inputs: Mapping[str, Artifact | str]) -> ArtifactWriter | Artifact:
    """Return the finished artifact where this very work was done before, else a draft to fill.

    With `run.retry_failed`, an artifact with failures is a draft again, in the same place, and stays what it is until
    the draft is finished. An input is an artifact, or the digest of a plain file. Raises StorageError, before any work,
    where the store cannot be written.
    """
    marks = {role: _mark(one) if isinstance(one, Artifact) else one for role, one in inputs.items()}
    names = {role: one.manifest.folder if isinstance(one, Artifact) else one for role, one in inputs.items()}
    mark = fingerprint(step, config.fingerprint_values(), marks)
    store = StoragePath.of(config.run.store)
    place = store / step / f"{config.name}-{mark}"
    if (place / MANIFEST).exists():
        there = open_artifact(place, step)
        if not (there.manifest.failures and config.run.retry_failed):
            return there
    store.check_writable()
    return ArtifactWriter(place, step, config.name, mark, names, _shown(config.manifest_values()))


def _mark(one: Artifact) -> str:
    """Return what an input counts as in a fingerprint: its own, and which slides it lacks, for these may come later."""
    if not one.manifest.failures:
        return one.manifest.fingerprint
    lacking = sorted({str(row["slide"]) for row in one.failures().to_pylist()})
    return f"{one.manifest.fingerprint} without {digest_of(lacking)}"


def resolve(store: str, reference: str, step: str) -> Artifact:
    """Open the artifact that a config names: `<step>/<name>`, `<step>/<name>-<fingerprint>`, or a path or URI.

    Raises ArtifactError where there is none, where it is not finished, or where another step made it.
    """
    head, _, name = reference.partition("/")
    if head != step or "/" in name or not name:
        return open_artifact(StoragePath.of(reference), step)
    folder = StoragePath.of(store) / step
    found = [n for n in folder.names() if n == name or n.rpartition("-")[0] == name]
    finished = [folder / n for n in found if (folder / n / MANIFEST).exists()]
    # What an older raystp left does not hide what this one made since.
    finished = [place for place in finished if not _is_of_another_version(place)] or finished
    if finished:
        return max((open_artifact(place, step) for place in finished), key=lambda one: one.manifest.created)
    if found:
        return open_artifact(folder / found[-1], step)
    raise ArtifactError(_none(StoragePath.of(store), reference, step))


def _none(store: StoragePath, reference: str, step: str) -> str:
    known = sorted({n.rpartition("-")[0] for n in (store / step).names()} - {""})
    left = f"left {', '.join(known)} there" if known else "has left nothing there"
    return (
        f"no artifact '{reference}' in {store}: the '{step}' step {left}; "
        f"run `raystp {step}` first, or name another artifact or store (--set run.store=...)"
    )


def open_artifact(place: StoragePath, step: str) -> Artifact:
    """Open the finished artifact in a folder; raises ArtifactError in a sentence where that cannot be."""
    file = place / MANIFEST
    if not file.exists():
        unfinished, absent = "has no manifest.json: the step has not finished there", "is not there"
        what = unfinished if place.exists() else f"{absent} (one in the store is named {step}/<name>)"
        msg = f"{place} {what}; run `raystp {step}` first"
        raise ArtifactError(msg)
    try:
        values = json.loads(file.read_bytes())
        version = values["schema_version"]
        if version != SCHEMA_VERSION:
            msg = (
                f"{file} is of schema version {version}, this raystp reads version {SCHEMA_VERSION}: "
                f"run `raystp {step}` again with this version"
            )
            raise ArtifactError(msg)
        manifest = Manifest(**values)
    except (ValueError, KeyError, TypeError) as error:
        msg = f"{file} is not a manifest ({type(error).__name__}: {error}): a damaged or altered file"
        raise ArtifactError(msg) from None
    if manifest.step != step:
        msg = f"{place} was left by the '{manifest.step}' step, an artifact of the '{step}' step was wanted"
        raise ArtifactError(msg)
    return Artifact(place, manifest)


def _is_of_another_version(place: StoragePath) -> bool:
    """Say whether a manifest is of another schema version; `open_artifact` reports a damaged one."""
    try:
        values = json.loads((place / MANIFEST).read_bytes())
    except ValueError:
        return False
    return isinstance(values, dict) and values.get("schema_version", SCHEMA_VERSION) != SCHEMA_VERSION


def digest(place: StoragePath) -> str:
    """Return the sha256 of a file's whole content, in hexadecimal."""
    total = hashlib.sha256()
    with place.open() as file:
        while block := file.read(1 << 20):
            total.update(block)
    return total.hexdigest()


def content_id(place: StoragePath, *, edge: int = 1 << 20) -> str:
    """Return an id of a large file's content from its size, first and last `edge` bytes: cheap over a network.

    A file changed in its middle alone, at equal size, keeps its id; formats keep their tables at either end. A
    folder's id is that of the names and ids in it; what is absent has the id `absent`.
    """
    if not place.exists():
        return "absent"
    if place.is_folder():
        text = json.dumps([[name, content_id(place / name, edge=edge)] for name in place.names()])
        return hashlib.sha256(text.encode()).hexdigest()[:16]
    return file_id(place, edge=edge)


def file_id(place: StoragePath, *, edge: int = 1 << 20) -> str:
    """Return the `content_id` of a file or an object; raises StorageError, naming it, where it cannot be read."""
    seen = place.stored_object().info()
    size = seen.size
    ends = [(0, min(edge, size)), (max(0, size - edge), min(edge, size))]
    head, tail = place.read_ranges(ends, version=seen.version)
    return hashlib.sha256(str(size).encode() + head + tail).hexdigest()[:16]


def _shown(values: Any) -> Any:
    """Return a config's values with each URI as a place prints it: a manifest is copied about, a secret must not be."""
    if isinstance(values, dict):
        return {key: _shown(value) for key, value in values.items()}
    if isinstance(values, list):
        return [_shown(value) for value in values]
    return str(StoragePath.of(values)) if isinstance(values, str) and "://" in values else values


def _packages() -> dict[str, str]:
    found = {}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "absent"
    return found
