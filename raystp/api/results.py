"""Artifacts in a notebook: tables as pandas, slides as AnnData, failures, and a summary that a notebook shows."""

import html
import io
from collections.abc import Sequence
from pathlib import Path

import anndata as ad
import pandas as pd
import pyarrow as pa
import pyarrow.csv as pv

from raystp.artifacts import MANIFEST, Artifact, Manifest, resolve
from raystp.artifacts import open_artifact as open_folder
from raystp.errors import ArtifactError, some
from raystp.expression.schema import read_h5ad
from raystp.storage import StoragePath

MAIN_TABLE = {
    "tile": "slides",
    "train": "epochs",
    "tune": "trials",
    "complete": "errors",
    "index": "rows",
    "evaluate": "scores",
    "predict": "slides",
}
"""Step -> the table that `StepResult.table()` returns."""

SUFFIXES = (".parquet", ".csv")
H5AD_FOLDERS = ("anndata", "sections")
SHOWN_FAILURES = 20


class StepResult:
    """The artifact of a step, as `run`, the functions of each step and `open_artifact` return it.

    `path` is its folder and `manifest` its description (`config`, `inputs`, `rows`, `notes`, `failures`). It can be
    given to another function of this package in place of `<step>/<name>`.

    Examples:
        >>> tiles = rs.open_artifact("tile/smoke", store=store)
        >>> tiles.step, tiles.manifest.rows["slides"]
        ('tile', 5)
    """

    def __init__(self, artifact: Artifact) -> None:
        self.artifact = artifact

    @property
    def path(self) -> str:
        """The folder, a path or URI."""
        return self.artifact.path.uri

    @property
    def step(self) -> str:
        """The step that wrote it."""
        return self.artifact.manifest.step

    @property
    def manifest(self) -> Manifest:
        """Its config, inputs, counts and notes."""
        return self.artifact.manifest

    @property
    def failures(self) -> pd.DataFrame:
        """Slides, sections or tiles that failed: `slide`, `stage`, `reason`; empty if there are none."""
        return _to_pandas(self.artifact.failures())

    @property
    def tables(self) -> list[str]:
        """Names that `table` takes; a folder of tables is one name."""
        names = self.artifact.path.names()
        files = [name.rpartition(".")[0] for name in names if name.endswith(SUFFIXES)]
        folders = [name for name in names if "." not in name and self._tables_in(name)]
        return sorted([*files, *folders])

    def table(self, name: str | None = None) -> pd.DataFrame:
        """Return a table by its name, such as `slides` or `tiles/<slide>`; without a name, the step's main one.

        A folder of tables is returned as one table. Coordinates are in level-0 px, (x, y) the top-left corner.

        Raises:
            ArtifactError: there is no such table; the message lists those that there are.
        """
        chosen = name or MAIN_TABLE.get(self.step, "")
        path = self.artifact.path
        for suffix in SUFFIXES:
            file = path / f"{chosen}{suffix}"
            if chosen and file.exists():
                return _read(file)
        parts = self._tables_in(chosen) if chosen else []
        if parts:
            return pd.concat([_read(path / chosen / part) for part in parts], ignore_index=True)
        what = f"no table {chosen!r}" if chosen else "no main table: name one"
        msg = f"{path} has {what}; it has {some(self.tables, 20) or 'none'}"
        raise ArtifactError(msg)

    def anndata(self, slide: str) -> ad.AnnData:
        """Return a slide's prediction, or a measured section: `obsm["spatial"]` has centres in level-0 px.

        Raises:
            ArtifactError: there is no such slide or section; the message lists those that there are.
        """
        names = {folder: self._names_in(folder, ".h5ad") for folder in H5AD_FOLDERS}
        for folder, files in names.items():
            if f"{slide}.h5ad" in files:
                return read_h5ad(self.artifact.path / folder / f"{slide}.h5ad")
        known = [file.removesuffix(".h5ad") for files in names.values() for file in files]
        msg = f"{self.path} has no AnnData of {slide!r}; it has {some(known, 20) or 'none'}"
        raise ArtifactError(msg)

    def to_spatialdata(self, slide: str, folder: str | Path, *, genes: Sequence[str] | None = None) -> str:
        """Write a predicted slide as the SpatialData store `<folder>/<slide>.zarr` and return its path or URI.

        It has the files of `raystp export spatialdata`; open it with `spatialdata.read_zarr`. This package does not
        need spatialdata.

        Raises:
            ArtifactError, ConfigError: it is no prediction of expression, or has none of this slide.
            FormatError: a gene is not predicted.
        """
        # Ray is imported by the steps, and most uses of a result do not need them.
        from raystp.interop.outputs.registry import write_slide  # noqa: PLC0415
        from raystp.interop.outputs.slide import OutputOptions  # noqa: PLC0415
        from raystp.steps.export.expression import open_expression  # noqa: PLC0415
        from raystp.steps.export.predictions import open_predictions  # noqa: PLC0415

        target = StoragePath.of(folder)
        predictions = open_predictions(self.artifact.path.parent.parent.uri, self.path)
        if slide not in predictions.manifest.notes["slides"]:
            msg = f"{self.path} has no prediction of {slide!r}; it has {some(predictions.manifest.notes['slides'], 20)}"
            raise ArtifactError(msg)
        with open_expression(predictions, slide) as found:
            write_slide("spatialdata", found if genes is None else found.select(list(genes)), target, OutputOptions())
        return (target / f"{slide}.zarr").uri

    def __fspath__(self) -> str:
        return self.path

    def __repr__(self) -> str:
        rows = ", ".join(f"{count} {what}" for what, count in self.manifest.rows.items())
        failed = f", {self.manifest.failures} failures" if self.manifest.failures else ""
        return f"<{self.manifest.folder}: {rows}{failed}>"

    def _repr_html_(self) -> str:
        """Return the summary that a notebook shows."""
        manifest = self.manifest
        cells = {**manifest.rows, "failures": manifest.failures, "created": manifest.created[:19]}
        rows = [(str(key), str(value)) for key, value in {"path": self.artifact.path, **cells}.items()]
        body = "".join(f"<tr><th>{html.escape(key)}</th><td>{html.escape(value)}</td></tr>" for key, value in rows)
        title = html.escape(f"{manifest.step}: {manifest.name}")
        failures = self.failures.head(SHOWN_FAILURES).to_html(index=False) if manifest.failures else ""
        return f"<div><b>{title}</b><table>{body}</table>{failures}</div>"

    def _names_in(self, folder: str, suffix: str) -> list[str]:
        path = self.artifact.path / folder
        return [name for name in path.names() if name.endswith(suffix)] if path.is_folder() else []

    def _tables_in(self, folder: str) -> list[str]:
        return [name for suffix in SUFFIXES for name in self._names_in(folder, suffix)]


def open_artifact(reference: str | Path, *, store: str | Path = "store") -> StepResult:
    """Open the artifact `<step>/<name>` (the newest of that name in the store), or the one in a folder or URI.

    Raises:
        ArtifactError: it does not exist, is not finished, or is damaged.

    Examples:
        >>> scores = rs.open_artifact("evaluate/smoke", store=store).table()
        >>> sorted(scores["metric"].unique())[:2]
        ['MAE', 'MSE']
    """
    text = str(reference)
    step, slash, name = text.partition("/")
    folder = StoragePath.of(text)
    if (folder / MANIFEST).exists() or not slash or "/" in name:
        parent = folder.parent.name
        return StepResult(open_folder(folder, parent))
    return StepResult(resolve(str(store), text, step))


def _read(file: StoragePath) -> pd.DataFrame:
    return _to_pandas(pv.read_csv(io.BytesIO(file.read_bytes())) if file.name.endswith(".csv") else file.read_table())


def _to_pandas(table: pa.Table) -> pd.DataFrame:
    frame: pd.DataFrame = table.to_pandas()
    return frame
