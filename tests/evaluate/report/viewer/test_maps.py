"""The maps in a browser: what is drawn where, what is read beside them, and what a choice changes."""

import io
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image

from raystp.evaluate.report.document import build_report
from raystp.evaluate.report.viewer.content import MEASURED, PREDICTED, MapContent
from raystp.evaluate.report.viewer.part import viewer
from raystp.evaluate.report.viewer.scores import gene_scores
from tests.browser import NARROW, OpenPage
from tests.evaluate.report.test_page import HOSTILE, report
from tests.evaluate.report.viewer.toy import (
    GENES,
    HEIGHT,
    HIGH,
    PITCH,
    WIDTH,
    content,
    grid,
    outcome,
    section,
    whole_slide,
)

if TYPE_CHECKING:
    from playwright.sync_api import Page

SOURCE = "Bokeh.documents.map((one) => one.get_model_by_name('maps-spots')).find(Boolean).data"
MODELS = "Bokeh.documents.flatMap((one) => Array.from(one._all_models.values()))"
YELLOW, RED, BLUE = (253, 231, 37), (255, 0, 0), (0, 0, 255)


def opened(folder: Path, open_page: OpenPage, maps: MapContent, **how: Any) -> "Page":
    path = folder / "report.html"
    path.write_text(build_report(report(viewer=viewer(maps))), encoding="utf-8")
    page = open_page(path, **how)
    page.wait_for_function("document.getElementById('maps-name').textContent !== ''")
    return page


def choose(page: "Page", gene: str) -> None:
    """Click into the field, type a gene's name and press Enter."""
    field = page.get_by_label("Gene or gene set")
    field.click()
    field.press_sequentially(gene)
    field.press("Enter")
    page.wait_for_function(
        "(name) => document.getElementById('maps-name').textContent.startsWith(name + ' on')", arg=gene
    )


def column(page: "Page", name: str) -> np.ndarray:
    values: list[float | None] = page.evaluate(f"Array.from({SOURCE}[{name!r}], (v) => Number.isNaN(v) ? null : v)")
    return np.array([np.nan if value is None else value for value in values], dtype=float)


def belief(page: "Page") -> str:
    return str(page.locator("#maps-belief").inner_text())


def pixels_of(page: "Page", at: int, colour: tuple[int, int, int]) -> np.ndarray:
    """Return (x, y) of all px of a colour in a map's screenshot, without its colour bar."""
    plot = page.locator(".maps-panels .bk-Figure").nth(at)
    plot.scroll_into_view_if_needed()
    page.wait_for_timeout(150)
    pixels = np.asarray(Image.open(io.BytesIO(plot.screenshot())).convert("RGB"))[:380]
    return np.argwhere(np.abs(pixels.astype(int) - colour).max(axis=2) < 40)[:, ::-1]


def chosen_slide(page: "Page", name: str) -> None:
    page.get_by_label("Section or slide").select_option(name)
    page.wait_for_function(
        "(name) => document.getElementById('maps-name').textContent.endsWith('on ' + name)", arg=name
    )


def test_where_is_erbb2_high_and_do_i_believe_it_and_why(tmp_path: Path, open_page: OpenPage) -> None:
    page, one = opened(tmp_path, open_page, content()), outcome()
    choose(page, "ERBB2")
    measured = column(page, "measured")
    assert (column(page, "x")[measured.argmax()], column(page, "y")[measured.argmax()]) == (WIDTH - 50, 50.0)
    said = belief(page)
    for sentence in (
        "PCC 1.00 [1.00, 1.00] over 200 spots",
        "The interval is above 0",
        "1 of 200 are far from the reference (outlined).",
    ):
        assert sentence in said
    assert [page.get_by_label(f"{place} map").input_value() for place in ("Left", "Middle", "Right")] == [
        "measured",
        "predicted",
        "error (predicted - measured)",
    ]
    for number, gene in enumerate(GENES):  # whatever is chosen, the browser has the values of the arrays
        choose(page, gene)
        np.testing.assert_allclose(column(page, "measured"), one.measured[:, number], atol=4 / 500)
        np.testing.assert_allclose(column(page, "predicted"), one.predicted[:, number], atol=4 / 500)
        np.testing.assert_allclose(column(page, "spread"), one.predicted[:, number] / 4, atol=1 / 500)
        np.testing.assert_allclose(column(page, "error"), column(page, "predicted") - column(page, "measured"))
    assert "Not measured in this section" in belief(page)
    choose(page, "FASN")
    assert "The interval includes 0" in belief(page)
    choose(page, "HER2 amplicon")
    np.testing.assert_allclose(column(page, "measured"), one.measured[:, :2].mean(axis=1), atol=4 / 500)
    np.testing.assert_array_equal(np.stack([column(page, "x"), column(page, "y")], axis=1), grid())
    assert len(_tops(page)) == 1  # side by side
    _check_click(page)


def test_the_maps_have_the_orientation_and_the_scale_of_the_slide(tmp_path: Path, open_page: OpenPage) -> None:
    high = np.repeat(4.0 * (np.arange(200) == HIGH)[:, None], len(GENES), axis=1)
    page = opened(tmp_path, open_page, content(replace(section(), layers={MEASURED: high, PREDICTED: high})))
    spot = pixels_of(page, 1, YELLOW).mean(axis=0)
    page.get_by_label("Middle map").select_option("H&E only")
    red, blue = (pixels_of(page, 1, colour).mean(axis=0) for colour in (RED, BLUE))
    assert (red < blue).all()  # the top-left corner of the tissue, and the bottom-right one
    across, down = (blue - red) / (WIDTH - PITCH, HEIGHT - PITCH)
    assert across == pytest.approx(down, rel=0.03)  # one scale on both axes
    assert spot == pytest.approx((blue[0], red[1]), abs=4)  # at the top right; spots are 20 px apart
    moved = _moved(page)
    assert [one[:4] for one in moved] == [moved[0][:4]] * 3  # the maps have moved together
    left, right, bottom, top, width, height = moved[0]
    assert right - left < WIDTH  # nearer
    assert (right - left) / width == pytest.approx((bottom - top) / height, rel=0.01)


def _moved(page: "Page") -> list[list[float]]:
    """Drag the first map and zoom in with Ctrl and the wheel; return the ranges and the size of each map."""
    box = page.locator(".maps-panels .bk-Figure").nth(0).bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + 200, box["y"] + 200)
    page.mouse.down()
    page.mouse.move(box["x"] + 140, box["y"] + 230)
    page.mouse.up()
    page.keyboard.down("Control")
    page.mouse.wheel(0, -300)
    page.keyboard.up("Control")
    page.wait_for_timeout(300)
    moved: list[list[float]] = page.evaluate(
        f"{MODELS}.filter((one) => one.type === 'Figure').map((one) => [one.x_range.start, one.x_range.end,"
        " one.y_range.start, one.y_range.end, one.inner_width, one.inner_height])"
    )
    return moved


def _check_click(page: "Page") -> None:
    """A click on a spot shows its nearest reference tiles."""
    why = page.locator("#maps-why")
    assert "Click a spot" in why.inner_text()
    choose(page, "ERBB2")
    x, y = page.evaluate(
        f"(() => {{ const plot = {MODELS}.find((one) => one.type === 'Figure'), view = Bokeh.index.find_one(plot);"
        f" return [view.frame.x_scale.compute({WIDTH - 50}), view.frame.y_scale.compute(50)] }})()"
    )
    page.locator(".maps-panels .bk-Figure").nth(0).locator(".bk-Canvas").click(position={"x": x, "y": y})
    page.wait_for_function(f"document.querySelector('#maps-why h3')?.textContent === 'Why? spot {HIGH}'")
    first, second = (one.inner_text().split("\n") for one in why.locator("figure").all()[1:])
    assert first == ["R, patient Q", "spot r1", "distance 0.125", "ERBB2 3.00"]
    assert second[:2] == ["no picture in this file", "R, patient Q"]
    assert why.locator("img").evaluate("(one) => one.naturalWidth") == 8
    choose(page, "ACTB")  # the explanation follows the gene
    page.wait_for_function("document.querySelector('#maps-why').innerText.includes('ACTB not known')")
    chosen_slide(page, "W")
    assert "Click a spot" in why.inner_text()


def _tops(page: "Page") -> set[int]:
    """Return the distinct upper edges of the maps, in px."""
    boxes = [one.bounding_box() for one in page.locator(".maps-panels .bk-Figure").all()]
    return {round(box["y"]) for box in boxes if box is not None}


def test_on_a_dark_telephone_every_choice_changes_the_maps_and_they_fit(tmp_path: Path, open_page: OpenPage) -> None:
    page = opened(tmp_path, open_page, content(), width=NARROW, dark=True)
    assert page.evaluate("document.documentElement.scrollWidth") <= NARROW
    assert len(_tops(page)) == 3  # one below the other
    page.get_by_role("button", name="GRB7").click()
    page.wait_for_function("document.getElementById('maps-name').textContent.startsWith('GRB7')")
    assert page.get_by_label("Gene or gene set").input_value() == "GRB7"
    chosen_slide(page, "W")
    assert "Nothing was measured on this slide" in belief(page)
    assert np.isnan(column(page, "measured")).all()
    np.testing.assert_allclose(column(page, "predicted"), grid()[:, 0] / WIDTH, atol=1 / 500)
    assert len(pixels_of(page, 1, YELLOW))
    page.evaluate(f"{MODELS}.find((one) => one.type === 'Slider').value = 0")
    assert not len(pixels_of(page, 1, YELLOW))


def test_names_are_text_and_what_was_left_out_is_said(
    tmp_path: Path, open_page: OpenPage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("raystp.evaluate.report.viewer.part.BUDGET", 10)
    maps = replace(content(section(HOSTILE[1]), whole_slide(HOSTILE[0])), genes=HOSTILE, model=HOSTILE[1])
    page = opened(tmp_path, open_page, maps)
    choose(page, HOSTILE[1])
    page.wait_for_timeout(300)
    assert page.evaluate("window.broken") is None
    assert page.locator("#maps-name").inner_text() == f"{HOSTILE[1]} on {HOSTILE[1]}"
    assert f"predicted of {HOSTILE[0]}: not in this file" in page.locator("#gene-maps").inner_text()
    assert "Left out of this file for its size: measured, predicted, spread." in belief(page)


def test_a_set_is_compared_over_the_genes_that_were_measured(tmp_path: Path, open_page: OpenPage) -> None:
    """ACTB was not measured: its prediction is in neither the predicted mean nor the error."""
    sets, own = [np.array([0, 3])], outcome()
    slide = replace(section(), scores=gene_scores(own, sets, rng=np.random.default_rng(0), draws=20))
    page = opened(tmp_path, open_page, replace(content(slide), sets={"pair": sets[0]}))
    choose(page, "pair")
    assert column(page, "predicted") == pytest.approx(own.predicted[:, 0], abs=0.01)
    assert column(page, "error") == pytest.approx(own.predicted[:, 0] - own.measured[:, 0], abs=0.02)
