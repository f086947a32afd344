"""`tile` names slides of one content under two patients; under one patient they are only noted."""

from typing import Any, cast

import pytest

from raystp.steps.tile.step import _add_copies
from raystp.steps.tile.work import TileResult


def _slide(slide: str, patient: str) -> TileResult:
    values: dict[str, Any] = {"slide": slide, "patient": patient, "warnings": ["first"]}
    return cast("TileResult", values)


@pytest.mark.parametrize(("patient", "is_leak"), [("P2", True), ("P1", False), ("", False)])
def test_a_slide_that_another_patient_has_too_gets_a_warning(*, patient: str, is_leak: bool) -> None:
    slides = [_slide("a", "P1"), _slide("b", "P9"), _slide("c", patient)]
    notes = _add_copies(slides, {"a": "1", "b": "2", "c": "1", "failed": "1"})
    warnings = slides[0]["warnings"][1:]
    assert [one["warnings"] for one in slides[1:]] == [["first"], ["first"]]
    assert bool(warnings) == is_leak
    assert ("duplicates" in notes) != is_leak
    for sentence in [*warnings, *cast("list[str]", notes.get("duplicates", []))]:
        assert sentence.startswith(f"slides 'a' (patient 'P1') and 'c' (patient '{patient}') have the same content")
