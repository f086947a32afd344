"""Mutated files of Visium HD and Xenium: each gives a section, or one sentence; never another exception."""

import contextlib
import shutil
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from raystp.errors import RaystpError
from raystp.expression.readers.registry import read
from raystp.expression.readers.source import SectionSource
from raystp.expression.schema import check_section
from tests.expression.readers.mutations import mutate_hdf5, mutate_json, mutate_text
from tests.expression.readers.pooled import hd_files, xenium_files

Change = Callable[[Path, np.random.Generator], object]


def _hdf5(path: Path, rng: np.random.Generator) -> None:
    with contextlib.suppress(OSError, ValueError, TypeError, RuntimeError, KeyError):  # a fault that h5py refuses
        mutate_hdf5(path, rng)


def _json(path: Path, rng: np.random.Generator) -> None:
    path.write_bytes(mutate_json(path.read_bytes(), rng))


def _text(path: Path, rng: np.random.Generator) -> None:
    path.write_bytes(mutate_text(path.read_bytes(), rng))


def _parquet(path: Path, rng: np.random.Generator) -> None:
    """Change some bytes, cut the file, or remove, empty or retype one column."""
    content, kind = bytearray(path.read_bytes()), int(rng.integers(5))
    if kind == 0:
        path.write_bytes(content[: int(rng.integers(len(content)))])
        return
    if kind == 1:
        for at in rng.integers(len(content), size=4):
            content[at] = int(rng.integers(256))
        path.write_bytes(content)
        return
    table = pq.read_table(path)
    column, rows = int(rng.integers(table.num_columns)), table.num_rows
    name = table.column_names[column]
    values: list[object] = [None, "x", -1, 0.5, 1e300, True, b"\xff", float("nan"), [1], {"a": 1}]
    filled = pa.array([values[int(rng.integers(len(values)))]] * rows)
    changed = table.remove_column(column) if kind == 2 else table.set_column(column, name, filled)
    pq.write_table(table.slice(0, 0) if kind == 3 and rng.random() < 0.2 else changed, path)


BINS = "binned_outputs/square_008um"
TARGETS: dict[str, tuple[str, Change]] = {
    f"{BINS}/spatial/tissue_positions.parquet": ("visium_hd", _parquet),
    f"{BINS}/spatial/scalefactors_json.json": ("visium_hd", _json),
    f"{BINS}/filtered_feature_bc_matrix.h5": ("visium_hd", _hdf5),
    "experiment.xenium": ("xenium", _json),
    "toy_he_imagealignment.csv": ("xenium", _text),
    "transcripts.parquet": ("xenium", _parquet),
    "cells.parquet": ("xenium", _parquet),
    "cell_feature_matrix.h5": ("xenium", _hdf5),
}


def sound_source(layout: str, folder: Path, *, by_cells: bool) -> SectionSource:
    if layout == "visium_hd":
        hd_files.write_bins(folder / "sound", hd_files.Bins())
        return hd_files.source_of(folder / "work", pool_um=40.0)
    xenium_files.write_bundle(folder / "sound", xenium_files.random_section(xenium_files.he_to_morphology(37.0)))
    return xenium_files.source_of(folder / "work", xenium_from="cells" if by_cells else "transcripts")


def _outcome(source: SectionSource, label: str) -> str:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of numpy, about the damaged file
        try:
            section, _ = read(source)
        except RaystpError as error:
            said = str(error)
        except Exception as error:  # noqa: BLE001 -- what this test looks for
            pytest.fail(f"{label}: {type(error).__name__}: {error}")
        else:
            check_section(section, label)
            return "section"
    assert len(said) < 1500, label
    assert "\n" not in said, label
    return "error"


def fuzz(folder: Path, file: str, seeds: range) -> Counter[str]:
    """Read the files with a fault per seed; return how often each outcome came."""
    layout, change = TARGETS[file]
    source = sound_source(layout, folder, by_cells=file in {"cells.parquet", "cell_feature_matrix.h5"})
    outcomes: Counter[str] = Counter()
    for seed in seeds:
        shutil.rmtree(folder / "work", ignore_errors=True)
        shutil.copytree(folder / "sound", folder / "work")
        change(folder / "work" / file, np.random.default_rng(seed))
        outcomes[_outcome(source, f"{file}, seed {seed}")] += 1
    return outcomes


@pytest.mark.parametrize("file", TARGETS)
def test_mutated_files_give_a_section_or_one_sentence(tmp_path: Path, file: str) -> None:
    outcomes = fuzz(tmp_path, file, range(20))
    assert outcomes["error"] > 0


@pytest.mark.faults
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("file", TARGETS)
def test_many_mutated_files_give_a_section_or_one_sentence(tmp_path: Path, file: str) -> None:
    assert sum(fuzz(tmp_path, file, range(1000, 1500)).values()) == 500
