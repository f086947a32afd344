"""Rows and bytes of the steps after `embed` follow from spots, panel and config; what cannot be known is said."""

from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from raystp.errors import ConfigError
from raystp.slides.table import SlideRow
from raystp.steps.plan import step as plan
from raystp.steps.plan.sample import SlideCost
from raystp.steps.plan.text import plan_text
from raystp.steps.plan.totals import total_of
from raystp.storage import StoragePath

SPOTS, GENES = 6, 3
BLEEP = {"model": "bleep", "split": {"test": ["PC"], "validation": ["PB"]}}


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """Three measured slides of six spots, and one without spots."""
    pixels = np.full((192, 160, 3), 240, np.uint8)
    pixels[30:160, 20:140] = (150, 80, 160)
    lines = ["slide,path,patient,mpp,layout,counts"]
    for name in "ABCD":
        Image.fromarray(pixels).save(tmp_path / f"{name}.png")
        measured = f"scverse,{name}.h5ad" if name != "D" else ","
        lines.append(f"{name},{name}.png,P{name},0.5,{measured}")
    counts = np.arange(1.0, 1 + SPOTS * GENES, dtype=np.float32).reshape(SPOTS, GENES)
    centres = np.array([[x, y] for y in (60.0, 120.0) for x in (40.0, 80.0, 120.0)])
    obs = pd.DataFrame(index=pd.Index([f"s{row}" for row in range(SPOTS)]))
    var = pd.DataFrame(index=pd.Index(["G1", "G2", "G3"]))
    section = ad.AnnData(counts, obs=obs, var=var, obsm={"spatial": centres}, uns={"raystp": {"mpp": 0.5}})
    for name in "ABC":
        section.write_h5ad(tmp_path / f"{name}.h5ad")
    (tmp_path / "slides.csv").write_text("\n".join(lines))
    return tmp_path / "slides.csv"


def _later(table: Path, **fields: Any) -> tuple[dict[str, dict[str, Any]], dict[str, Any]]:
    values = {
        "slides": str(table),
        "spots": {"min_counts": 1},
        "tile": {"tile_um": 16, "tile_px": 64},
        "rate": {"tiny": 100, "tile": 10},
        "run": {"store": "/none"},
        "train": BLEEP,
        **fields,
    }
    found = plan.make_plan(plan.CONFIG.of(values))
    return {one["step"].partition("/")[0]: one for one in found["later"]}, found


def _value(step: dict[str, Any], key: str) -> float:
    return float(step[key]["value"])


def test_rows_and_bytes_follow_from_spots_genes_and_vectors(table: Path) -> None:
    later, found = _later(table)
    dim = found["steps"][1]["dim"]
    assert (_value(later["spots"], "rows"), later["spots"]["genes"]) == (3 * SPOTS, GENES)
    assert _value(later["train"], "rows") == 2 * SPOTS  # A trains, B validates
    assert _value(later["train"], "read") == 2 * SPOTS * dim * 4
    assert later["train"]["written"] is None
    assert _value(later["index"], "rows") == 2 * SPOTS
    row = 4 * (256 + GENES)  # BLEEP's embedding, and expression
    assert _value(later["index"], "written") == pytest.approx(2 * SPOTS * (row + 4 * 256 * 0.85))  # and the queries
    tiles = _value(found["steps"][1], "tiles") - 2 * SPOTS  # of C and D
    assert _value(later["impute"], "rows") == tiles > SPOTS
    thumbnails = 2 * (3 * 160 * 192 + 60_000)  # of C and D, with the other parts of an h5ad
    values = tiles * GENES * 4 * 1.7 + SPOTS * GENES * 4
    assert _value(later["impute"], "written") == pytest.approx(values + thumbnails)
    assert _value(later["impute"], "as_neighbours") == tiles * (50 * 4 + 48)
    assert _value(later["evaluate"], "rows") == SPOTS
    assert "trained on 20 times" in later["evaluate"]["unknown"]
    assert found["not_planned"] == []


def test_the_form_of_index_and_prediction_changes_their_bytes(table: Path) -> None:
    bleep = {**BLEEP, "bleep": {"dim": 8}, "retrieval": {"weights": "softmax"}}
    fields = {"index": {"expression": "float16", "kind": "exact"}, "impute": {"output": "neighbours", "k": 4}}
    later, _ = _later(table, train=bleep, **fields)
    assert _value(later["index"], "written") == pytest.approx(2 * SPOTS * (4 * 8 * 1.85 + 2 * GENES))
    assert _value(later["impute"], "written") == _value(later["impute"], "rows") * (4 * 6 + 48)
    chosen, _ = _later(table, impute={"genes": ["G1"], "slides": ["C"], "spread": True}, index={"expression": "csr"})
    assert _value(chosen["impute"], "written") == pytest.approx(SPOTS * 4 * (2.7 + 1) + 3 * 160 * 192 + 60_000)
    assert chosen["index"]["unknown"].startswith("at most: the share of zeros is not known")


def test_a_panel_of_a_file_counts_its_genes(table: Path) -> None:
    panel = table.parent / "panel.txt"
    panel.write_text("G1\nG3\n")
    assert _later(table, train={**BLEEP, "panel": {"file": str(panel)}})[0]["train"]["genes"] == 2


def test_steps_of_which_nothing_is_known_are_named(table: Path) -> None:
    ridge = {"model": "ridge", "name": "r", "split": BLEEP["split"]}
    both = {"model": "ensemble", "name": "e", "ensemble": {"members": ["train/r"]}, "split": BLEEP["split"]}
    _, found = _later(table, train=[ridge, both])
    assert found["not_planned"] == ["impute/e", "train/e"]
    _, folded = _later(table, train={"model": "ridge"}, folds=3)
    assert [one.partition("/")[0] for one in folded["not_planned"]] == ["evaluate", "impute", "train"]


def test_a_split_that_the_table_does_not_have_is_refused_before_the_run(table: Path) -> None:
    with pytest.raises(ConfigError, match="PX"):
        _later(table, train={**BLEEP, "split": {"test": ["PX"]}})


def test_the_text_has_a_line_for_each_step_and_says_what_is_unknown(table: Path) -> None:
    text = plan_text(_later(table)[1])
    (line,) = [one for one in text.splitlines() if one.startswith("train/default  ")]
    assert line.split()[1:3] == ["12", "3"]
    assert "train/default: bytes of the model depend on the method; the hours are not known before it runs" in text


def test_slides_that_are_not_opened_count_the_mean_of_their_kind() -> None:
    rows = [SlideRow(f"a{n}", StoragePath.of(f"/x/a{n}.svs"), "P", None, None, None, None, "", None) for n in range(10)]
    costs = [SlideCost(row, tiles=number) for row, number in zip(rows, (2, 4, 6), strict=False)]
    whole = total_of(rows[:3], costs, lambda one: one.tiles)
    assert (whole.value, whole.half) == (12, 0)
    part = total_of(rows[1:5], costs, lambda one: one.tiles)
    assert part.value == 4 + 6 + 2 * 4
    assert part.half == pytest.approx(1.96 * (4 * (4 / 3 + 2)) ** 0.5)
