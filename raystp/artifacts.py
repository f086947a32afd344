"""Artifacts: the results of steps, their manifests, and how a later step finds them.

An artifact is a folder `<store>/<step>/<name>-<fingerprint>/` with its data and a `manifest.json` that is written
last: a folder without a manifest is unfinished and can be resumed. The fingerprint covers what is computed: the config
without its `run` part, the inputs' fingerprints, digests of files. It does not cover the resources, so equal work has
the same path and is not repeated.

A config refers to an input as `<step>/<name>` (the newest finished artifact of that name in the store) or by the path
or URI of the artifact's folder.
"""

import datetime as dt
import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import pyarrow as pa

from raystp import tables
from raystp.config import R, StepConfig
from raystp.digests import digest_of
from raystp.errors import ArtifactError
from raystp.planned import PlannedWork, WorkPlanned, is_planning
from raystp.storage import StoragePath, is_safe_name
from raystp.versions import installed_version

MANIFEST = "manifest.json"
SCHEMA_VERSION = 1
"""Version of the manifest and of the layout of an artifact's folder."""

KEY_AND_SECRET = re.compile(r"(?<=://)[^/\s@]*@")
"""The credentials in a URI."""

PACKAGES = ("raystp", "ray", "torch", "timm", "numpy", "pyarrow", "anndata", "openslide-python")


@dataclass(frozen=True)
class Manifest:
    """Description of an artifact: its config, its inputs and its failures. The keys are stored."""

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
    """Facts for later steps and readers, as plain JSON values (shapes, genes, sections)."""
    statistics: dict[str, Any] = field(default_factory=dict)
    """Times and rates of the run that finished it; they differ between runs with equal results."""
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
        """Read one of its tables. Raises ArtifactError if its name, version or columns are not those of `schema`."""
        file = self.path / name
        tables.check(file.read_schema(), schema, str(file))
        return file.read_table(columns)

    def noted(self, note: str) -> StoragePath:
        """Return the folder of another artifact that one of its notes names, as `note_of` wrote it."""
        return self.path.parent.parent / note if re.fullmatch(r"[^/:]+/[^/:]+", note) else StoragePath(note)

    def failures(self) -> pa.Table:
        """Return its failures table, empty if there were no failures."""
        if not self.manifest.failures:
            return tables.FAILURES.empty_table()
        return self.table("failures.parquet", tables.FAILURES)


@dataclass(frozen=True)
class ArtifactWriter:
    """An unfinished artifact: its folder, and the part of the manifest that is known before the work."""

    path: StoragePath
    step: str
    name: str
    fingerprint: str
    inputs: dict[str, str]
    config: dict[str, object]

    @property
    def folder(self) -> str:
        """The artifact's path under its store: `<step>/<name>-<fingerprint>`."""
        return f"{self.step}/{self.name}-{self.fingerprint}"

    def describing(self, config: StepConfig[R], inputs: Mapping[str, Artifact | str]) -> "ArtifactWriter":
        """Return a writer of the same folder whose manifest describes the work that a search has chosen."""
        return replace(self, inputs=_folders(inputs), config=_stored_values(config))

    def finish(
        self,
        rows: Mapping[str, int],
        failures: list[dict[str, object]],
        notes: Mapping[str, object] | None = None,
        statistics: Mapping[str, object] | None = None,
    ) -> Artifact:
        """Write the failures table, sorted by slide, then the manifest; from then on the artifact is finished."""
        if not failures:
            (self.path / "failures.parquet").remove()  # of an earlier attempt
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
            notes=without_keys(dict(notes or {})),
            statistics=dict(statistics or {}),
            created=dt.datetime.now(dt.UTC).isoformat(timespec="microseconds"),
        )
        (self.path / MANIFEST).write_bytes(json.dumps(asdict(manifest), indent=1, sort_keys=True).encode())
        return Artifact(self.path, manifest)


def fingerprint(step: str, what: Mapping[str, object], inputs: Mapping[str, str]) -> str:
    """Return 12 hexadecimal digits of this work: the step, config without `run`, inputs and schema version."""
    text = json.dumps([SCHEMA_VERSION, step, what, dict(inputs)], sort_keys=True, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def create_or_open(config: StepConfig[R], step: str, inputs: Mapping[str, Artifact | str]) -> ArtifactWriter | Artifact:
    """Return the finished artifact if this work was done before, else a writer for it.

    With `run.retry_failed`, an artifact with failures is returned as a writer for the same path; it stays as it is
    until the writer finishes. An input is an artifact, or the digest of a plain file. Raises StorageError, before any
    work, if the store is not writable; WorkPlanned within `planned.plan_only`.
    """
    fingerprints = {role: _input_fingerprint(one) if isinstance(one, Artifact) else one for role, one in inputs.items()}
    of_work = fingerprint(step, config.fingerprint_values(), fingerprints)
    store = StoragePath.of(config.run.store)
    path = store / step / f"{config.name}-{of_work}"
    found = open_artifact(path, step) if (path / MANIFEST).exists() else None
    if is_planning():
        finished, failed = (found.manifest.created, found.manifest.failures) if found is not None else (None, 0)
        raise WorkPlanned(PlannedWork(path, _folders(inputs), finished, failed))
    if found is not None and not (found.manifest.failures and config.run.retry_failed):
        return found
    store.check_writable()
    return ArtifactWriter(path, step, config.name, of_work, _folders(inputs), _stored_values(config))


def _folders(inputs: Mapping[str, Artifact | str]) -> dict[str, str]:
    return {role: one.manifest.folder if isinstance(one, Artifact) else one for role, one in inputs.items()}


def _stored_values(config: StepConfig[R]) -> dict[str, object]:
    return {key: without_secrets(value) for key, value in config.manifest_values().items()}


def _input_fingerprint(artifact: Artifact) -> str:
    """Return an input's part of a fingerprint: its own, and the slides it lacks, because those may be added later.

    A slide is listed once for each of its failures: it may lack single tiles.
    """
    if not artifact.manifest.failures:
        return artifact.manifest.fingerprint
    lacking = sorted(str(row["slide"]) for row in artifact.failures().to_pylist())
    return f"{artifact.manifest.fingerprint} without {digest_of(lacking)}"


def resolve(store: str, reference: str, step: str) -> Artifact:
    """Open the artifact that a config refers to: `<step>/<name>`, `<step>/<name>-<fingerprint>`, or a path or URI.

    Raises ArtifactError if it does not exist, is not finished, or belongs to another step.
    """
    head, _, name = reference.partition("/")
    if head != step or "/" in name or not name:
        path = StoragePath.of(reference)
        if not path.exists() and (other := _of_other_step(StoragePath.of(store), reference)):
            msg = f"{reference} is an artifact of the '{other}' step; give one of the '{step}' step, {step}/<name>"
            raise ArtifactError(msg)
        return open_artifact(path, step)
    folder = StoragePath.of(store) / step
    found = [n for n in folder.names() if n == name or n.rpartition("-")[0] == name]
    finished = [folder / n for n in found if (folder / n / MANIFEST).exists()]
    # An artifact of an older raystp does not hide those of this one.
    finished = [path for path in finished if not _has_other_version(path)] or finished
    if finished:
        return max((open_artifact(path, step) for path in finished), key=lambda artifact: artifact.manifest.created)
    if found:
        return open_artifact(folder / found[-1], step)
    raise ArtifactError(_not_found(StoragePath.of(store), reference, step))


def _of_other_step(store: StoragePath, reference: str) -> str:
    """Return the step of a reference that the store has; empty for any other text."""
    head, _, name = reference.partition("/")
    if not is_safe_name(head) or not is_safe_name(name):
        return ""
    return head if any(name in {one, one.rpartition("-")[0]} for one in (store / head).names()) else ""


def _not_found(store: StoragePath, reference: str, step: str) -> str:
    known = sorted({n.rpartition("-")[0] for n in (store / step).names()} - {""})
    has = f"has the artifacts {', '.join(known)}" if known else "has no artifact there"
    return (
        f"no artifact '{reference}' in {store}: the '{step}' step {has}; "
        f"run `raystp {step}` first, or choose another artifact or store (--set run.store=...)"
    )


def open_artifact(path: StoragePath, step: str) -> Artifact:
    """Open the finished artifact in a folder. Raises ArtifactError if there is none or it is not valid."""
    file = path / MANIFEST
    if not file.exists():
        unfinished, absent = "has no manifest.json: the step has not finished", "does not exist"
        reason = unfinished if path.exists() else f"{absent} (an artifact in the store is written {step}/<name>)"
        msg = f"{path} {reason}; run `raystp {step}` first"
        raise ArtifactError(msg)
    try:
        values = json.loads(file.read_bytes())
        version = values["schema_version"]
        if version != SCHEMA_VERSION:
            msg = (
                f"{file} has schema version {version}, and this raystp reads version {SCHEMA_VERSION}: "
                f"run `raystp {step}` again with this version"
            )
            raise ArtifactError(msg)
        manifest = Manifest(**values)
    except (ValueError, KeyError, TypeError) as error:
        msg = f"{file} is not a manifest ({type(error).__name__}: {error}): the file is damaged or was changed"
        raise ArtifactError(msg) from None
    if manifest.step != step:
        msg = f"{path} is an artifact of the '{manifest.step}' step; give one of the '{step}' step"
        raise ArtifactError(msg)
    return Artifact(path, manifest)


def _has_other_version(path: StoragePath) -> bool:
    """Return whether a manifest has another schema version; `open_artifact` reports a damaged one."""
    try:
        values = json.loads((path / MANIFEST).read_bytes())
    except ValueError:
        return False
    return isinstance(values, dict) and values.get("schema_version", SCHEMA_VERSION) != SCHEMA_VERSION


def note_of(artifact: Artifact, store: StoragePath) -> str:
    """Return how an artifact of this store notes another one: `<step>/<folder>`, or the path of one of another store.

    A path has no `key:secret@`, since manifests are copied: such a store is read with the environment's credentials.
    """
    if str(artifact.path.parent.parent) == str(store):
        return artifact.manifest.folder
    return artifact.path.with_query()


def without_secrets(values: Any) -> Any:
    """Return a config's values with the credentials and the query of each URI removed: manifests are copied."""
    if isinstance(values, dict):
        return {key: without_secrets(value) for key, value in values.items()}
    if isinstance(values, list):
        return [without_secrets(value) for value in values]
    return str(StoragePath.of(values)) if isinstance(values, str) and "://" in values else values


def without_keys(values: Any) -> Any:
    """Return what is stored without the `key:secret@` of URIs, in sentences too; the rest of a URI stays."""
    if isinstance(values, dict):
        return {key: without_keys(value) for key, value in values.items()}
    if isinstance(values, list | tuple):
        return [without_keys(value) for value in values]
    return KEY_AND_SECRET.sub("", values) if isinstance(values, str) else values


def _packages() -> dict[str, str]:
    return {name: installed_version(name) for name in PACKAGES}
