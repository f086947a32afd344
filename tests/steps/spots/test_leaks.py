"""One tissue under two patients is a warning that names both; under one patient it is a note."""

from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import pytest

from raystp.expression.readers.options import SectionOptions
from raystp.slides.table import SlideRow
from raystp.steps.spots.leaks import Duplicates, SectionContents, find_duplicates
from raystp.steps.spots.step import SectionRead, SpotsTask, read_one
from raystp.storage import StoragePath


def _section(folder: Path, name: str, patient: str, *, seed: int, slide: bytes) -> tuple[SlideRow, SectionRead]:
    """Write a section of 100 spots and 150 genes, whose counts follow from the seed, and read it as the step does."""
    counts = np.random.default_rng(seed).poisson(np.random.default_rng(seed).gamma(0.5, 40, 150), (100, 150))
    adata = ad.AnnData(counts.astype(np.float32), var=pd.DataFrame(index=[f"G{gene}" for gene in range(150)]))
    adata.obs_names = [f"s{spot}" for spot in range(100)]
    adata.obsm["spatial"] = np.stack(np.meshgrid(np.arange(10), np.arange(10)), axis=-1).reshape(-1, 2) * 400.0
    adata.write_h5ad(folder / f"{name}.h5ad")
    (folder / f"{name}.svs").write_bytes(slide)
    path, counts_path = StoragePath.of(folder / f"{name}.svs"), StoragePath.of(folder / f"{name}.h5ad")
    row = SlideRow(name, path, patient, 0.5, "scverse", counts_path, None, name, None)
    found = read_one(SpotsTask(row, StoragePath.of(folder / "out" / f"{name}.h5ad"), None, SectionOptions()))
    assert isinstance(found, SectionRead)
    return row, found


def _duplicates(*sections: tuple[SlideRow, SectionRead]) -> Duplicates:
    contents = SectionContents()
    for row, found in sections:
        contents.add(row, found.slide_content, found.bulk)
    return find_duplicates(contents)


@pytest.mark.filterwarnings("ignore:Transforming to str index")
def test_one_tissue_under_two_patients_is_named_by_its_counts_and_by_its_slide(tmp_path: Path) -> None:
    first = _section(tmp_path, "A", "P1", seed=1, slide=b"one")
    other = _section(tmp_path, "B", "P2", seed=2, slide=b"two")
    counts = _section(tmp_path, "C", "P3", seed=1, slide=b"three")
    slide = _section(tmp_path, "D", "P4", seed=4, slide=b"two")
    found = _duplicates(first, other, counts, slide)
    assert found.within == []
    assert found.leaks == {
        "A": [
            "sections 'A' (patient 'P1') and 'C' (patient 'P3') have 100 spots each, and equal counts over 150 shared "
            "genes: they may be one tissue, a possible leak, since a split by patient may train on one and test on the "
            "other; give them one patient, or leave one out"
        ],
        "B": [
            "slides 'B' (patient 'P2') and 'D' (patient 'P4') have the same content: a possible leak, since a split by "
            "patient may train on one and test on the other; give them one patient, or leave one out"
        ],
    }


@pytest.mark.filterwarnings("ignore:Transforming to str index")
def test_copies_under_one_patient_are_only_noted(tmp_path: Path) -> None:
    sections = [_section(tmp_path, name, "P1", seed=1, slide=b"one") for name in ("A", "B")]
    found = _duplicates(*sections)
    assert found.leaks == {}
    assert found.within == [
        "slides 'A' (patient 'P1') and 'B' (patient 'P1') have the same content",
        "sections 'A' and 'B' of patient 'P1' have equal counts",
    ]
