"""A cohort of twelve slides of which six are broken in six ways: the others give the artifacts of the six alone."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import tifffile

from raystp import cli
from raystp.expression.schema import read_section, write_section
from raystp.expression.synthetic.programs import plant_programs
from raystp.slides.synthetic.slide import TISSUES
from raystp.steps.demo.draw import DrawTask, draw
from raystp.storage import StoragePath

GOOD = ["A", "B", "C", "D", "E", "F"]
PIXELS = 2048
TIFF: dict[str, Any] = {
    "photometric": "rgb",
    "tile": (256, 256),
    "resolution": (20_000.0, 20_000.0),
    "resolutionunit": "centimeter",
}
"""0.5 um/px."""


def _cut_off(slide: Path, _: Path) -> None:
    content = slide.read_bytes()
    slide.write_bytes(content[: len(content) // 3])


def _sixteen_bits(slide: Path, _: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 4095, (PIXELS, PIXELS, 3), np.uint16)
    tifffile.imwrite(slide, pixels, **TIFF)


def _glass(slide: Path, counts: Path) -> None:
    tifffile.imwrite(slide, np.full((PIXELS, PIXELS, 3), 242, np.uint8), **TIFF)
    counts.unlink()


def _logarithms(_: Path, counts: Path) -> None:
    section = read_section(StoragePath.of(counts))
    section.X = section.X.astype(np.float32).log1p()
    section.write_h5ad(counts)


def _mirrored(_: Path, counts: Path) -> None:
    section = read_section(StoragePath.of(counts))
    section.obsm["spatial"] = np.array([[PIXELS, 0.0]]) + section.obsm["spatial"] * np.array([[-1.0, 1.0]])
    write_section(StoragePath.of(counts), section)


def _odd_file(_: Path, counts: Path) -> None:
    """Damage the index of the sparse matrix: scipy's own loops over it would crash the process."""
    with h5py.File(counts, "r+") as file:
        file["X/indptr"][3] = 10**8


BROKEN: dict[str, tuple[Callable[[Path, Path], None], str]] = {
    "cut-off": (_cut_off, "cut-off.svs"),
    "sixteen-bits": (_sixteen_bits, "16"),
    "glass": (_glass, "tissue"),
    "logarithms": (_logarithms, "raw counts"),
    "mirrored": (_mirrored, "mirror"),
    "odd-file": (_odd_file, "ends of rows do not lead from 0"),
}
"""Slide -> how it is broken, and a part of the reason."""


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cohort")
    programs = plant_programs(np.random.default_rng([0, 0]), [tissue.name for tissue in TISSUES])
    for number, name in enumerate(GOOD):
        draw(DrawTask(name, number, PIXELS, 0, programs, StoragePath.of(folder)))
    for name, (damage, _) in BROKEN.items():
        slide, counts = folder / "slides" / f"{name}.svs", folder / "counts" / f"{name}.h5ad"
        shutil.copy(folder / "slides" / "A.svs", slide)
        shutil.copy(folder / "counts" / "A.h5ad", counts)
        damage(slide, counts)
    return folder


def _run(cohort: Path, names: list[str], store: Path, capsys: pytest.CaptureFixture[str]) -> dict[str, dict[str, Any]]:
    """Run three steps on these slides by the command line; return the JSON line of each."""
    rows = [
        f"{name},slides/{name}.svs,{name}," + (f"scverse,counts/{name}.h5ad" if name != "glass" else ",")
        for name in names
    ]
    table = cohort / f"{store.name}.csv"
    table.write_text("\n".join(["slide,path,patient,layout,counts", *rows]) + "\n")
    run = ["--set", f"run.store={store}"]
    found = {}
    for step, fields in {
        "spots": [f"slides={table}"],
        "tile": [f"slides={table}", "spots=spots/default"],
        "embed": ["tiles=tile/default", "run.encoders=1"],
    }.items():
        status = cli.main([step, *run, *(word for field in fields for word in ("--set", field))])
        found[step] = json.loads(capsys.readouterr().out.splitlines()[-1])
        assert found[step]["exit"] == status
    return found


def _files(artifact: str, part: str) -> dict[str, bytes]:
    folder = Path(artifact)
    return {str(file.relative_to(folder)): file.read_bytes() for file in sorted(folder.glob(f"{part}/**/*.*"))}


@pytest.mark.ray
@pytest.mark.usefixtures("ray_session")
def test_six_broken_slides_are_six_reasons_and_the_others_give_the_artifacts_of_the_six_alone(
    cohort: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mixed = [name for pair in zip(GOOD, BROKEN, strict=True) for name in pair]
    alone, together = (
        _run(cohort, names, tmp_path / label, capsys) for label, names in [("six", GOOD), ("all", mixed)]
    )
    assert {step: one["exit"] for step, one in alone.items()} == dict.fromkeys(alone, 0)
    assert {step: one["exit"] for step, one in together.items() if step != "embed"} == {"spots": 3, "tile": 3}

    reasons: dict[str, str] = {}
    for one in together.values():
        for row in one["first_failures"]:
            reasons.setdefault(row["slide"], row["reason"])
    assert set(reasons) == set(BROKEN)
    for name, (_, part) in BROKEN.items():
        assert part in reasons[name], reasons[name]

    parts = {"spots": ["sections"], "tile": ["tiles", "masks", "thumbnails"], "embed": ["embeddings"]}
    for step, folders in parts.items():
        for folder in folders:
            first, second = (_files(found[step]["artifact"], folder) for found in (alone, together))
            assert {name.split("/")[1].split(".")[0] for name in first} == set(GOOD)
            assert {name: content for name, content in second.items() if name in first} == first
            # A slide without tissue keeps its thumbnail, and a slide that is damaged keeps its section.
            assert set(second) == set(first) or folder not in ("tiles", "embeddings")
