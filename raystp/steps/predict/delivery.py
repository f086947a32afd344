"""The folder of the user's that gets the results: what it may hold before, and how results are put there.

`slides.csv` is written before the predictions, and names all that are written; `summary.md` is the last file, and says
that all are there. A folder whose `slides.csv` names a file is thus known to have it from `predict`.
"""

import csv
import io
import logging
import shutil
from collections.abc import Collection
from dataclasses import fields

from raystp.artifacts import Artifact
from raystp.errors import ConfigError, some
from raystp.steps.impute.slide_table import SLIDES_CSV, SlideResult
from raystp.steps.predict.results import ANNDATA, SUMMARY
from raystp.storage import StoragePath

logger = logging.getLogger("raystp")

SUFFIX = ".h5ad"
COLUMNS = [field.name for field in fields(SlideResult)]
OTHER_FOLDER = "choose another folder with --out"


def written_slides(out: StoragePath) -> frozenset[str]:
    """Return the slides whose prediction an earlier run put into the folder, as its `slides.csv` names them.

    Raises ConfigError for a `slides.csv` or `summary.md` that is not one of `predict`.
    """
    if not (out / SLIDES_CSV).exists():
        if (out / SUMMARY).exists():
            raise _foreign(out / SUMMARY)
        return frozenset()
    text = (out / SLIDES_CSV).read_bytes().decode("utf-8", errors="replace")
    rows = csv.DictReader(io.StringIO(text))
    if list(rows.fieldnames or ()) != COLUMNS:
        raise _foreign(out / SLIDES_CSV)
    return frozenset(row["slide"] for row in rows if row["tiles"] not in {"0", "", None})


def check_delivery(out: StoragePath, slides: Collection[str]) -> None:
    """Raise ConfigError where results of these slides would replace files that `predict` has not written.

    It also refuses a folder with predictions of other slides: a reader could not tell them from the new ones.
    """
    written, files = written_slides(out), _predictions_in(out)
    if foreign := sorted(files & set(slides) - written):
        shown = some([f"{name}{SUFFIX}" for name in foreign])
        msg = f"out: {out} holds {shown}, which `raystp predict` has not written and would replace: {OTHER_FOLDER}"
        raise ConfigError(msg)
    if other := sorted(files & written - set(slides)):
        msg = (
            f"out: {out} holds predictions of {len(other)} slides that this run does not have ({some(other)}): "
            f"{OTHER_FOLDER}, or remove these files"
        )
        raise ConfigError(msg)


def deliver(artifact: Artifact, out: StoragePath) -> None:
    """Copy the results to the folder; earlier predictions of slides that now have none are removed, with a warning."""
    summary = (artifact.path / SUMMARY).read_bytes()
    if (out / SUMMARY).exists() and (out / SUMMARY).read_bytes() == summary:
        return
    slides: list[str] = artifact.manifest.notes["slides"]
    _remove_old(out, slides)
    _copy(artifact.path / SLIDES_CSV, out / SLIDES_CSV)
    for slide in slides:
        _copy(artifact.path / ANNDATA / f"{slide}{SUFFIX}", out / f"{slide}{SUFFIX}")
    (out / SUMMARY).write_bytes(summary)


def _remove_old(out: StoragePath, slides: Collection[str]) -> None:
    """Remove the earlier summary, which says that all is there, and predictions that this run does not replace."""
    old = sorted(_predictions_in(out) & written_slides(out) - set(slides))
    if (out / SUMMARY).exists():
        (out / SUMMARY).remove()
    for slide in old:
        (out / f"{slide}{SUFFIX}").remove()
    if old:
        shown = some([f"{name}{SUFFIX}" for name in old])
        logger.warning(f"predict: removed {shown} of an earlier run from {out}: these slides have no prediction now")


def _predictions_in(out: StoragePath) -> set[str]:
    return {name.removesuffix(SUFFIX) for name in out.names() if name.endswith(SUFFIX)}


def _copy(source: StoragePath, target: StoragePath) -> None:
    with source.local() as local:
        target.write_file(lambda path: shutil.copyfile(local, path))


def _foreign(file: StoragePath) -> ConfigError:
    return ConfigError(f"out: {file} exists, and `raystp predict` has not written it: {OTHER_FOLDER}")
