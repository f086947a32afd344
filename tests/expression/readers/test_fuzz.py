"""Mutated files: each gives a section that passes the schema, or one RaystpError; never another exception."""

import contextlib
import shutil
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from raystp.errors import RaystpError
from raystp.expression.readers.registry import read
from raystp.expression.readers.source import SectionSource
from raystp.expression.schema import check_section
from tests.expression.readers.mutations import mutate_hdf5, mutate_json, mutate_text
from tests.expression.toy_layouts import toy, write


def _text(name: str) -> Callable[[Path, np.random.Generator], None]:
    def change(folder: Path, rng: np.random.Generator) -> None:
        (folder / name).write_bytes(mutate_text((folder / name).read_bytes(), rng))

    return change


def _hdf5(name: str) -> Callable[[Path, np.random.Generator], None]:
    def change(folder: Path, rng: np.random.Generator) -> None:
        with contextlib.suppress(OSError, ValueError, TypeError, RuntimeError, KeyError):  # a fault that h5py refuses
            mutate_hdf5(folder / name, rng)

    return change


def _json(folder: Path, rng: np.random.Generator) -> None:
    path = folder / "spatial" / "scalefactors_json.json"
    path.write_bytes(mutate_json(path.read_bytes(), rng))


TARGETS: dict[str, tuple[str, Callable[[Path, np.random.Generator], None]]] = {
    "counts table": ("legacy_st", _text("counts.tsv")),
    "selection": ("legacy_st", _text("selection.tsv")),
    "tissue positions": ("space_ranger", _text("spatial/tissue_positions.csv")),
    "scale factors": ("space_ranger", _json),
    "matrix": ("space_ranger", _hdf5("filtered_feature_bc_matrix.h5")),
    "h5ad": ("scverse", _hdf5("section.h5ad")),
}


def _fuzz(folder: Path, target: str, seeds: range) -> Counter[str]:
    """Read the files with a fault per seed; return how often each outcome came."""
    layout, change = TARGETS[target]
    outcomes: Counter[str] = Counter()
    source = write(toy(layout), layout, folder / "sound")
    for seed in seeds:
        shutil.rmtree(folder / "work", ignore_errors=True)
        shutil.copytree(folder / "sound", folder / "work")
        change(folder / "work", np.random.default_rng(seed))
        outcomes[_read(_moved(source, folder), f"{target}, seed {seed}")] += 1
    return outcomes


def _moved(source: SectionSource, folder: Path) -> SectionSource:
    moved = {
        name: None if path is None else type(path).of(str(path).replace(str(folder / "sound"), str(folder / "work")))
        for name, path in (("counts", source.counts), ("positions", source.positions))
    }
    counts = moved["counts"]
    assert counts is not None
    return SectionSource("S1", "slide1", "P1", source.layout, counts, moved["positions"])


def _read(source: SectionSource, label: str) -> str:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of anndata and numpy, about the damaged file
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
    return "error"


@pytest.mark.parametrize("target", TARGETS)
def test_mutated_files_give_a_section_or_one_sentence(tmp_path: Path, target: str) -> None:
    outcomes = _fuzz(tmp_path, target, range(60))
    assert outcomes["error"] > 0
    assert outcomes["section"] > 0


@pytest.mark.faults
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("target", TARGETS)
def test_many_mutated_files_give_a_section_or_one_sentence(tmp_path: Path, target: str) -> None:
    outcomes = _fuzz(tmp_path, target, range(1000, 2000))
    assert sum(outcomes.values()) == 1000
