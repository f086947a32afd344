"""Bad input: each kind gives one message with the fault, its file and what to do; the rest of the work is kept.

What may not be learned from or predicted is in `test_leaks.py`, slips in a slide table in `tests/slides/test_table.py`.
"""

import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
import pytest

from raystp import cli, tables
from raystp.artifacts import resolve
from raystp.errors import ConfigError, EncoderError
from raystp.expression.readers.options import SectionOptions
from raystp.slides.table import SlideRow
from raystp.steps.embed import step as embed
from raystp.steps.embed.config import EmbedConfig
from raystp.steps.spots import step as spots
from raystp.steps.tile import step as tile
from raystp.steps.tile.work import TileResult, TileTask, tile_slide
from raystp.storage import StoragePath

Write = Callable[[Path], Path]
MPP = {"mpp": 0.5}


def _left(store: StoragePath) -> list[str]:
    """Return every file in a store."""
    return sorted(str(path.relative_to(store.local_path)) for path in store.local_path.rglob("*") if path.is_file())


def _message(capsys: pytest.CaptureFixture[str]) -> str:
    """Return the error message of a command, which is printed once, in the line for a scheduler."""
    told = capsys.readouterr()
    assert "Error" not in told.err
    message: str = json.loads(told.out.splitlines()[-1])["message"]
    return message


# ---- configs and artifacts


def test_an_unknown_key_of_an_encoder_is_told_and_nothing_is_left(
    toy_store: StoragePath, capsys: pytest.CaptureFixture[str]
) -> None:
    before = _left(toy_store)
    told = ["--set", f"run.store={toy_store}", "--set", "tiles=tile/toy", "--set", "encoder.wieghts=a.safetensors"]
    assert cli.main(["embed", *told]) == 1
    assert "  encoder.wieghts: there is no such field; did you mean 'weights'?" in _message(capsys)
    assert _left(toy_store) == before


def _embed(store: StoragePath, **encoder: Any) -> EmbedConfig:
    return embed.CONFIG.of({"tiles": "tile/toy", "encoder": encoder, "run": {"store": store.uri}})


def test_an_unknown_encoder_is_told_with_the_known_ones(toy_store: StoragePath) -> None:
    before = _left(toy_store)
    with pytest.raises(
        EncoderError, match=r"unknown encoder 'tinny'; choose mobilenet_v1_pw12, tiny, .*timm:<model> .*'tin"
    ):
        embed.run(_embed(toy_store, name="tinny"))
    assert _left(toy_store) == before


def test_weights_with_another_digest_are_refused_before_they_are_opened(toy_store: StoragePath, tmp_path: Path) -> None:
    file = tmp_path / "w.safetensors"
    file.write_bytes(b"not what was named")
    before = _left(toy_store)
    with pytest.raises(EncoderError, match=r"w.safetensors has sha256 \w{64}, expected 0{64}: another or damaged file"):
        embed.run(_embed(toy_store, name="timm:resnet18", weights=str(file), sha256="0" * 64))
    assert _left(toy_store) == before


def test_tiles_that_an_encoder_does_not_take_are_refused(toy_store: StoragePath) -> None:
    with pytest.raises(
        ConfigError, match=r"encoder 'tiny' expects tiles of 224 px, \S+ has 32 px: run `raystp tile` with"
    ):
        embed.run(_embed(toy_store, name="tiny"))


def test_an_artifact_of_another_schema_version_is_told_with_what_to_do(
    toy_store: StoragePath, capsys: pytest.CaptureFixture[str]
) -> None:
    file = resolve(toy_store.uri, "tile/toy", "tile").path.local_path / "manifest.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "schema_version": 7}))
    assert cli.main(["embed", "--set", "tiles=tile/toy", "--set", f"run.store={toy_store}"]) == 1
    assert _message(capsys) == (
        f"{file} has schema version 7, and this raystp reads version 1: run `raystp tile` again with this version"
    )


@pytest.mark.parametrize("step", ["spots", "tile"])
def test_a_store_that_cannot_be_written_is_told_before_any_work(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], step: str
) -> None:
    (tmp_path / "slides.csv").write_text("slide,path,patient,layout,counts\nA,a.png,P,scverse,a.h5ad\n")
    (tmp_path / "file").write_text("not a folder")
    arguments = [
        step,
        "--set",
        f"slides={tmp_path / 'slides.csv'}",
        "--set",
        f"run.store={tmp_path / 'file' / 'store'}",
    ]
    assert cli.main(arguments) == 1
    assert _message(capsys) == (
        f"the store {tmp_path / 'file' / 'store'} is not writable: Not a directory; "
        "choose another one with --set run.store=..."
    )


# ---- slides


def _tile_one(tmp_path: Path, row: SlideRow, section: StoragePath | None = None) -> TileResult | str:
    config = tile.CONFIG.of({"slides": "slides.csv", "tile_um": 16, "tile_px": 32, "run": {}})
    return tile_slide(TileTask(row, config, StoragePath.of(tmp_path / "out"), section))


def _row(path: Path, mpp: float | None) -> SlideRow:
    return SlideRow("S1", StoragePath.of(path), "P1", mpp, None, None, None, "S1", None)


def test_a_slide_without_um_per_px_is_told_with_the_column_to_fill(tmp_path: Path, drawn: Write) -> None:
    said = _tile_one(tmp_path, _row(drawn(tmp_path / "S1.png"), None))
    assert said == (
        f"slide 'S1' ({tmp_path / 'S1.png'}) has no um/px of its own; set the column `mpp` of the slide table"
    )
    assert not (tmp_path / "out").exists()


def test_an_um_per_px_that_no_microscope_has_is_told_with_the_column_to_fix(tmp_path: Path, drawn: Write) -> None:
    said = _tile_one(tmp_path, _row(drawn(tmp_path / "S1.png"), 352.8))
    assert (
        "the slide table gives 352.8 um/px, but scans have 0.05 to 10; set the right value in the column `mpp`"
        in str(said)
    )


def test_what_is_no_slide_is_told_with_its_file(tmp_path: Path, drawn: Write) -> None:
    whole = drawn(tmp_path / "whole.png").read_bytes()
    for name, content in {"text.svs": b"no slide", "empty.png": b"", "half.png": whole[: len(whole) // 2]}.items():
        (tmp_path / name).write_bytes(content)
    for name in ("text.svs", "empty.png", "half.png", "absent.svs"):
        said = _tile_one(tmp_path, _row(tmp_path / name, 0.5))
        assert isinstance(said, str), name
        assert f"slide 'S1' ({tmp_path / name})" in said
    assert not (tmp_path / "out").exists()


def test_spots_outside_their_slide_are_told_by_name(
    tmp_path: Path, drawn: Write, section: Callable[[str], ad.AnnData]
) -> None:
    far = section("S1")
    far.obsm["spatial"] = _moved(far, 200.0)
    place = StoragePath.of(tmp_path / "far.h5ad")
    place.write_file(far.write_h5ad)
    said = str(_tile_one(tmp_path, _row(drawn(tmp_path / "S1.png"), 0.5), place))
    assert (
        "slide 'S1' is 160 x 192 px (columns x rows), and 1 of 6 spots (16.7%, allowed are 2%) have their centre "
        "outside it: 's5 (x 320" in said
    )
    assert not (tmp_path / "out").exists()
    assert "is missing in the spots: their slide table had no such section; run `raystp spots` again" in str(
        _tile_one(tmp_path, _row(drawn(tmp_path / "S1.png"), 0.5), StoragePath.of(tmp_path / "none.h5ad"))
    )


def _moved(section: ad.AnnData, by: float) -> np.ndarray:
    """Return a section's centres with the last spot moved along x."""
    centres: np.ndarray = np.array(section.obsm["spatial"])
    centres[-1, 0] += by
    return centres


@pytest.mark.ray
@pytest.mark.usefixtures("ray_session")
def test_slides_that_fail_are_rows_of_a_table_and_the_others_are_tiled(
    tmp_path: Path, drawn: Write, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("good", "scaleless", "also-good"):
        drawn(tmp_path / "slides" / f"{name}.png")
    (tmp_path / "slides" / "damaged.png").write_bytes(b"\x89PNG\r\n\x1a\n and no more")
    rows = [
        f"{n},slides/{n}.png,P,{0.5 if n != 'scaleless' else ''}" for n in ("scaleless", "good", "damaged", "also-good")
    ]
    (tmp_path / "slides.csv").write_text("\n".join(["slide,path,patient,mpp", *rows, "absent,a.svs,P,0.5"]))
    arguments = ["tile", "--set", f"slides={tmp_path / 'slides.csv'}", "--set", f"run.store={tmp_path / 'store'}"]
    arguments += ["--set", "tile_um=16", "--set", "tile_px=32"]
    assert cli.main(arguments) == 3
    told = capsys.readouterr().out
    assert "  failed at tile: scaleless: slide 'scaleless' " in told
    assert "column `mpp`" in told
    done = resolve(str(tmp_path / "store"), "tile/default", "tile")
    assert done.failures()["slide"].to_pylist() == ["absent", "damaged", "scaleless"]
    slides = done.table("slides.parquet", tables.SLIDES)
    assert slides["slide"].to_pylist() == ["good", "also-good"]  # in the order of the slide table
    counts = [done.table(f"tiles/{name}.parquet", tables.TILES).num_rows for name in ("good", "also-good")]
    assert counts == slides["tiles"].to_pylist()
    assert done.manifest.rows == {"slides": 2, "tiles": sum(counts)}
    assert counts[0] > 0
    assert cli.main(arguments) == 3  # done before, and still not whole


# ---- measured sections


def _write_counts(path: Path, values: np.ndarray, names: list[str] | None = None) -> Path:
    """Write an h5ad as a user may have made it: nothing is checked."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # anndata warns of names that are there twice
        index = pd.Index(names or [f"s{row}" for row in range(len(values))])
        genes = pd.DataFrame(index=pd.Index([f"G{column}" for column in range(values.shape[1])]))
        xy = np.array([[10.0 * row, 20.0] for row in range(len(values))])
        adata = ad.AnnData(values, obs=pd.DataFrame(index=index), var=genes, obsm={"spatial": xy}, uns={"raystp": MPP})
        adata.write_h5ad(path)
    return path


def _counts() -> np.ndarray:
    values: np.ndarray = np.arange(1.0, 13.0, dtype=np.float32).reshape(4, 3)
    return values


BAD: dict[str, Callable[[Path], Path]] = {
    "nan": lambda path: _write_counts(path, np.where(_counts() == 5, np.nan, _counts())),
    "negative": lambda path: _write_counts(path, np.where(_counts() == 5, -1, _counts())),
    "normalised": lambda path: _write_counts(path, np.log1p(_counts())),
    "twice": lambda path: _write_counts(path, _counts(), ["s0", "s1", "s1", "s3"]),
}
SAID = {
    "nan": "has 1 counts that are not finite numbers: s1/G1 = nan",
    "negative": "has 1 negative counts: s1/G1 = -1",
    "normalised": "counts that are not whole numbers, so they are not raw counts (normalised already?): s0/G0 = 0.69",
    "twice": "lists 1 spots more than once in its counts: 's1'",
}


@pytest.mark.filterwarnings("ignore:Observation names are not unique")  # anndata's; a worker shows none
@pytest.mark.parametrize("kind", BAD)
def test_counts_that_are_none_are_told_with_spot_and_gene_and_nothing_is_written(tmp_path: Path, kind: str) -> None:
    file = StoragePath.of(BAD[kind](tmp_path / f"{kind}.h5ad"))
    row = SlideRow("S1", StoragePath.of("a.svs"), "P1", 0.5, "scverse", file, None, "S1", None)
    said = spots.read_one(spots.SpotsTask(row, StoragePath.of(tmp_path / "out" / "S1.h5ad"), None, SectionOptions()))
    assert isinstance(said, str)
    assert "section 'S1'" in said
    assert SAID[kind] in said
    assert not (tmp_path / "out").exists()


@pytest.mark.ray
@pytest.mark.usefixtures("ray_session")
def test_sections_that_fail_are_rows_of_a_table_and_the_others_are_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for kind, write in BAD.items():
        write(tmp_path / f"{kind}.h5ad")
    _write_counts(tmp_path / "good.h5ad", _counts())
    rows = [f"{name},{name}.svs,P,scverse,{name}.h5ad" for name in (*BAD, "good", "absent")]
    (tmp_path / "slides.csv").write_text("\n".join(["slide,path,patient,layout,counts", *rows]))
    arguments = ["spots", "--set", f"slides={tmp_path / 'slides.csv'}", "--set", f"run.store={tmp_path / 'store'}"]
    arguments += ["--set", "min_counts=1"]
    assert cli.main(arguments) == 3
    told = capsys.readouterr().out
    done = resolve(str(tmp_path / "store"), "spots/default", "spots")
    failed = {row["slide"]: row["reason"] for row in done.failures().to_pylist()}
    assert sorted(failed) == sorted([*BAD, "absent"])
    for kind, sentence in SAID.items():
        assert sentence in failed[kind]
        assert f"failed at spots: {kind}: " in told
    assert str(tmp_path / "absent.h5ad") in failed["absent"]
    assert list(done.manifest.notes["sections"]) == ["good"]
    assert (done.path / "sections").names() == ["good.h5ad"]


def test_a_table_without_a_measured_section_is_told_with_what_one_needs(tmp_path: Path) -> None:
    (tmp_path / "slides.csv").write_text("slide,path,patient\nA,a.svs,P\n")
    config = spots.CONFIG.of({"slides": str(tmp_path / "slides.csv"), "run": {"store": str(tmp_path / "store")}})
    with pytest.raises(
        ConfigError, match=r"no row of \S+/slides.csv has a `layout`; a measured section needs `layout` and"
    ):
        spots.run(config)
    assert not (tmp_path / "store").exists()
