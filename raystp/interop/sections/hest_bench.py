"""A task of hest-bench: its folder as a slide table, its panel, and its folds as `split` of `raystp train`.

    <root>/<TASK>/splits/train_<i>.csv, test_<i>.csv     sample_id, patches_path, expr_path (relative to the task)
    <root>/<TASK>/patches/<id>.h5                        images of spots: there are no slides
    <root>/<TASK>/adata/<id>.h5ad   var_50genes.json     spots, and the genes that are scored

The bench names no patients. They are those of HEST's CSV, where it is beside the tasks. Else the samples that the same
folds test count as one patient: no patient is then on both sides, and a leak within a fold's training is not made.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import h5py
import numpy as np
import yaml

from raystp.errors import FormatError, some
from raystp.hdf5 import checked_hdf5
from raystp.interop.choice import TableChoice
from raystp.interop.sections.hest import find_table, patients_of
from raystp.interop.sections.tables import TableFiles, choose, read_records, slide_table
from raystp.storage import StoragePath
from raystp.storage.text_files import read_object

PANELS = ("var_50genes.json", "mean_50genes.json")
"""The panel of a task, by its name in the releases."""
MAX_PANEL = 1 << 20
COLUMNS = ("sample_id", "patches_path", "expr_path")


@dataclass(frozen=True)
class BenchFold:
    """One fold of a task: names of samples."""

    number: int
    train: tuple[str, ...]
    test: tuple[str, ...]


def table_files(root: StoragePath, choice: TableChoice) -> TableFiles:
    """Return slide table, panel and folds of a task; raises FormatError where they are absent or contradict each other.

    um/px of each sample is read from its patches, so an object of a store is downloaded for it.
    """
    task = _task(root, choice.task)
    records, folds = _folds(task)
    taken = choose(list(records.values()), "sample_id", choice, str(task / "splits"))
    names = {record["sample_id"] for record in taken}
    kept = [fold for fold in (_of(fold, names) for fold in folds) if fold is not None]
    patients, notes = _patients(root, task, folds)
    rows = [_row(task, record, patients) for record in taken]
    unknown = [row["path"] for row in rows if not row["mpp"]]
    notes += [f"{path} does not state the um/px of its slide: add it to the column mpp" for path in unknown]
    if len(kept) < len(folds):
        notes.append(f"{len(folds) - len(kept)} of {len(folds)} folds have no chosen sample on one side: not written")
    files = {"slides.csv": slide_table(rows)}
    panel = next((task / name for name in PANELS if name in task.names()), None)
    if panel is None:
        notes.append(f"{task} has no {PANELS[0]}: give `raystp train` a panel")
    else:
        _check_panel(panel)
        files["panel.json"] = panel.read_bytes()
    files |= {f"splits/fold{fold.number}.yaml": _split(task.name, fold, panel) for fold in kept}
    return TableFiles(files, len(rows), tuple(notes))


def _row(task: StoragePath, record: Mapping[str, str], patients: Mapping[str, str]) -> dict[str, str]:
    name = record["sample_id"]
    patches, counts = _file(task, record, "patches_path", "h5"), _file(task, record, "expr_path", "h5ad")
    files = {"path": patches.with_query(), "counts": counts.with_query(), "layout": "hest"}
    return {"slide": name, "patient": patients[name], "mpp": source_mpp(patches), "section": name, **files}


def _task(root: StoragePath, name: str | None) -> StoragePath:
    """Return the folder of a task: the one named, the root itself, or the only one below it."""
    if name is None and (root / "splits").names():
        return root
    tasks = [one for one in root.names() if (root / one / "splits").names()]
    if name is None and len(tasks) == 1:
        return root / tasks[0]
    if name in tasks:
        return root / name
    if not tasks:
        msg = f"{root} has no <TASK>/splits/train_0.csv; give the folder of hest-bench, or of one of its tasks"
        raise FormatError(msg)
    msg = f"{root} has the tasks {some(tasks, 20)}: choose one with --task; got {name!r}"
    raise FormatError(msg)


def _folds(task: StoragePath) -> tuple[dict[str, Mapping[str, str]], list[BenchFold]]:
    """Return sample -> its record, in the order of the files, and the folds by number."""
    splits = task / "splits"
    present = set(splits.names())
    stems = [name.removeprefix("train_").removesuffix(".csv") for name in present if name.startswith("train_")]
    numbers = sorted(int(stem) for stem in stems if stem.isdigit())
    if not numbers:
        msg = f"{splits} has no train_<number>.csv; download the task again"
        raise FormatError(msg)
    records: dict[str, Mapping[str, str]] = {}
    folds = []
    for number in numbers:
        sides = []
        for side in ("train", "test"):
            path = splits / f"{side}_{number}.csv"
            if path.name not in present:
                msg = f"{splits} has train_{number}.csv and no {path.name}; download the task again"
                raise FormatError(msg)
            found = _samples(path)
            records |= {record["sample_id"]: record for record in found if record["sample_id"] not in records}
            sides.append(tuple(record["sample_id"] for record in found))
        if both := sorted({*sides[0]} & {*sides[1]}):
            msg = (
                f"{splits}: fold {number} trains on and tests {some(both)}: a sample is on one side; download it again"
            )
            raise FormatError(msg)
        folds.append(BenchFold(number, *sides))
    return records, folds


def _samples(path: StoragePath) -> list[dict[str, str]]:
    found = read_records(path)
    lacking = [name for name in COLUMNS[:1] if not found or name not in found[0]]
    if lacking:
        msg = f"{path} has {len(found)} rows and no column {lacking[0]!r}; a file of a fold has {', '.join(COLUMNS)}"
        raise FormatError(msg)
    return found


def _file(task: StoragePath, record: Mapping[str, str], column: str, suffix: str) -> StoragePath:
    """Return a sample's file: as the fold's file names it, relative to the task, else by the sample's name."""
    stated, name = record.get(column, ""), f"{record['sample_id']}.{suffix}"
    parts = stated.split("/")
    if stated and not stated.startswith("/") and ".." not in parts and (task / stated).exists():
        return task / stated
    path = task / ("patches" if suffix == "h5" else "adata") / name
    if not path.exists():
        msg = f"{path} is not there (named in splits/ as {stated!r}): download it, or leave the sample out with `ids`"
        raise FormatError(msg)
    return path


def source_mpp(patches: StoragePath) -> str:
    """Return the um/px of the slide of which a file of patches was made, as text; empty where it is not stated."""
    with checked_hdf5(patches, FormatError) as local, h5py.File(local, "r") as file:
        found = file["img"].attrs.get("pixel_size") if "img" in file else None
        value = np.asarray(found).ravel() if found is not None else np.empty(0)
    if value.size != 1 or value.dtype.kind not in "fiu" or not np.isfinite(value[0]) or value[0] <= 0:
        return ""
    return repr(float(value[0]))


def _patients(root: StoragePath, task: StoragePath, folds: Sequence[BenchFold]) -> tuple[dict[str, str], list[str]]:
    """Return sample -> patient, by HEST's CSV or by the folds that test it, and a sentence on which."""
    names = list(dict.fromkeys(name for fold in folds for name in (*fold.train, *fold.test)))
    for folder in dict.fromkeys((root, task, task.parent, task.parent.parent)):
        table = find_table(folder)
        if table is not None:
            known = patients_of(table)
            if absent := [name for name in names if name not in known]:
                return _patients_by_fold(task, folds, names, f"{table} lacks {some(absent)}: ")
            return {name: known[name] for name in names}, [f"patients are those of {table.name}"]
    return _patients_by_fold(task, folds, names, "")


def _patients_by_fold(
    task: StoragePath, folds: Sequence[BenchFold], names: Sequence[str], why: str
) -> tuple[dict[str, str], list[str]]:
    tested = {name: [fold.number for fold in folds if name in fold.test] for name in names}
    found = {
        name: f"{task.name}/tested-{'-'.join(map(str, numbers))}" if numbers else f"{task.name}/{name}"
        for name, numbers in tested.items()
    }
    said = "the bench names no patients, so samples that the same folds test count as one patient"
    return found, [f"{why}{said}; put HEST's CSV beside the tasks for the true ones"]


def _of(fold: BenchFold, names: set[str]) -> BenchFold | None:
    """Return a fold of these samples alone; None where a side is empty."""
    train, test = (tuple(name for name in side if name in names) for side in (fold.train, fold.test))
    return BenchFold(fold.number, train, test) if train and test else None


def _check_panel(path: StoragePath) -> None:
    genes = read_object(path, MAX_PANEL, FormatError).get("genes")
    if not isinstance(genes, list) or not genes or not all(isinstance(gene, str) and gene for gene in genes):
        msg = f'{path} is no panel: expected {{"genes": [names]}}; download it again'
        raise FormatError(msg)


def _split(task: str, fold: BenchFold, panel: StoragePath | None) -> bytes:
    """Return a config of `raystp train` with the sides of a fold, and the task's panel."""
    config: dict[str, object] = {
        "name": f"{task}-fold{fold.number}",
        "split": {"protocol": "patient", "train": list(fold.train), "test": list(fold.test)},
    }
    if panel is not None:
        config["panel"] = {"name": f"hest-bench-{task}", "file": panel.with_query()}
    head = (
        f"# Fold {fold.number} of {task}: raystp train --config fold{fold.number}.yaml --spots ... --embeddings ...\n"
    )
    return (head + yaml.safe_dump(config, sort_keys=False, allow_unicode=True)).encode()
