"""Targets: h5ad and the other files of measured sections, and HDF5 of which any byte may be changed."""

import warnings
from pathlib import Path

import numpy as np

from raystp.errors import SectionError
from raystp.expression.readers.registry import read
from raystp.expression.readers.source import SectionSource
from raystp.expression.schema import check_section
from raystp.hdf5 import check_hdf5
from tests.expression.readers.pooled.test_pooled_fuzz import TARGETS as POOLED
from tests.expression.readers.pooled.test_pooled_fuzz import sound_source
from tests.expression.toy_layouts import toy, write
from tests.security.fuzz.changes import change_bytes, change_file
from tests.security.fuzz.target import Execute, Prepare, Target


def _section(layout: str, name: str) -> Prepare:
    """Read a whole section with one of its files changed."""

    def prepare(folder: Path) -> Execute:
        source = write(toy(layout), layout, folder)
        content = (folder / name).read_bytes()

        def execute(rng: np.random.Generator) -> object:
            change_file(folder / name, content, rng)
            return _checked(source)

        return execute

    return prepare


def _pooled(name: str) -> Prepare:
    """Read a section of Visium HD or Xenium with one of its files changed."""

    def prepare(folder: Path) -> Execute:
        layout, change = POOLED[name]
        source = sound_source(layout, folder, by_cells=name in {"cells.parquet", "cell_feature_matrix.h5"})
        (folder / "sound").rename(folder / "work")
        content = (folder / "work" / name).read_bytes()

        def execute(rng: np.random.Generator) -> object:
            (folder / "work" / name).write_bytes(content)
            change(folder / "work" / name, rng)
            return _checked(source)

        return execute

    return prepare


def _checked(source: SectionSource) -> object:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of anndata and numpy, about the damaged file
        section, _ = read(source)
    check_section(section, "x")
    return section


def _hdf5_bytes(folder: Path) -> Execute:
    write(toy("scverse"), "scverse", folder)
    content, file = (folder / "section.h5ad").read_bytes(), folder / "changed.h5ad"

    def execute(rng: np.random.Generator) -> None:
        file.write_bytes(change_bytes(content, rng))
        check_hdf5(file, "changed.h5ad", SectionError)

    return execute


TARGETS = (
    Target("h5ad of scverse", "h5ad and h5", _section("scverse", "section.h5ad"), 1),
    Target("matrix of Space Ranger", "h5ad and h5", _section("space_ranger", "filtered_feature_bc_matrix.h5"), 1),
    Target("scale factors", "h5ad and h5", _section("space_ranger", "spatial/scalefactors_json.json"), 1),
    Target("HDF5, any byte", "h5ad and h5", _hdf5_bytes, 2),
    *(
        Target(f"{layout}: {name.rpartition('/')[2]}", "h5ad and h5", _pooled(name), 0)
        for name, (layout, _) in POOLED.items()
    ),
)
