"""The same numbers in any tool's files are the same tiles and embeddings; what is exported is imported again."""

from collections.abc import Callable, Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from raystp import tables
from raystp.artifacts import Artifact
from raystp.expression.embeddings.read import read_embeddings
from raystp.steps.export import step as export
from raystp.steps.export.config import ExportConfig
from raystp.steps.imports import step as imports
from raystp.steps.imports.config import ImportConfig
from tests.interop.features.lazyslide_maker import LazySlide
from tests.interop.features.makers import CORNERS, VECTORS, AtlasPatch, Clam, Slide2vec, Stamp
from tests.interop.features.trident_maker import Maker

WRITERS: Mapping[str, Callable[[Path, str], object]] = {
    "trident": lambda folder, slide: Maker(folder, slide=slide).write(),
    "clam": lambda folder, slide: Clam(folder, slide=slide).write(),
    "stamp": lambda folder, slide: Stamp(folder, slide=slide, vectors=VECTORS).write(),
    "slide2vec": lambda folder, slide: Slide2vec(folder, slide=slide).write(),
    "atlaspatch": lambda folder, slide: AtlasPatch(folder, slide=slide).write(),
    "lazyslide": lambda folder, slide: LazySlide(folder, slide=slide, ids=np.arange(10, 16)).write(),
}
CHOSEN = {"clam": {"encoder_name": "uni_v1"}, "atlaspatch": {"encoder_name": "uni_v2"}}


@pytest.fixture(autouse=True)
def _tasks_as_a_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    """Run the tasks in this process: Ray's own part is tested with the other steps."""
    for one in (imports, export):
        monkeypatch.setattr(one, "map_tasks", lambda function, items, **_: enumerate(map(function, items)))
        monkeypatch.setattr(one, "session", lambda _: nullcontext())


def _import(folder: Path, form: str, path: Path, **fields: Any) -> Artifact:
    rows = ["slide,path,patient,mpp", "S1,S1.svs,P1,0.25", "S2,S2.svs,P1,0.25", "S3,S3.svs,P1,0.25"]
    (folder / "slides.csv").write_text("\n".join(rows))
    config = {"format": form, "path": str(path), "slides": str(folder / "slides.csv"), **fields}
    embed = imports.run(ImportConfig.of(config | {"run": {"store": str(folder / "store")}}))
    assert isinstance(embed, Artifact)
    return embed


def _export(folder: Path, form: str, artifact: str, out: str) -> Path:
    config = {"format": form, "artifact": artifact, "out": str(folder / out), "name": out}
    export.run(ExportConfig.of(config | {"run": {"store": str(folder / "store")}}))
    return folder / out


@pytest.mark.parametrize("form", list(WRITERS))
def test_the_same_numbers_are_the_same_tiles_and_embeddings(tmp_path: Path, form: str) -> None:
    for slide in ("S1", "S2"):
        WRITERS[form](tmp_path / "in", slide)
    embed = _import(tmp_path, form, tmp_path / "in", **CHOSEN.get(form, {}))
    assert embed.failures().num_rows == 0
    assert sorted(embed.manifest.notes["units"]) == ["S1", "S2"]
    assert embed.manifest.notes["encoder"]["name"].startswith(f"imported:{form}:uni")
    assert embed.manifest.notes["side"] == 128.0
    for slide in ("S1", "S2"):
        table = read_embeddings(embed, slide)
        np.testing.assert_array_equal(np.stack([table[one].to_numpy() for one in ("x", "y")], axis=1), CORNERS)
        assert set(table["side"].to_pylist()) == {512.0}
        np.testing.assert_array_equal(tables.matrix(table["vector"]), VECTORS)


def test_a_slide_whose_file_names_another_encoder_is_left_out(tmp_path: Path) -> None:
    for slide, extractor in (("S1", "uni2"), ("S2", "keep"), ("S3", "uni2")):
        maker = Stamp(tmp_path / "in", slide=slide)
        maker.attributes["extractor"] = extractor
        maker.write()
    embed = _import(tmp_path, "stamp", tmp_path / "in")
    (failure,) = embed.failures().to_pylist()
    assert failure["slide"] == "S2"
    assert "the files name 'keep' and 'uni2': they are of another encoder" in failure["reason"]


@pytest.mark.parametrize("form", ["trident", "clam", "stamp"])
def test_what_is_exported_is_imported_again_and_two_exports_have_equal_bytes(tmp_path: Path, form: str) -> None:
    for slide in ("S1", "S2"):
        WRITERS["trident"](tmp_path / "in", slide)
    own = _import(tmp_path, "trident", tmp_path / "in", name="own")
    first, second = (_export(tmp_path, form, "embed/own", out) for out in ("first", "second"))
    files = sorted(one.relative_to(first) for one in first.rglob("*") if one.is_file())
    assert all((first / one).read_bytes() == (second / one).read_bytes() for one in files)
    assert ([str(one) for one in files if one.suffix == ".csv"] == ["clini.csv", "slide.csv"]) == (form == "stamp")
    again = _import(tmp_path, form, first, name="again", **CHOSEN.get(form, {}))
    assert len(files) >= 2
    for slide in ("S1", "S2"):
        expected, found = (read_embeddings(one, slide) for one in (own, again))
        columns = [one for one in expected.column_names if one != "vector"]
        assert found.select(columns).equals(expected.select(columns))
        np.testing.assert_array_equal(tables.matrix(found["vector"]), tables.matrix(expected["vector"]))
