"""Slides of one content are found by it; under two patients they are a possible leak."""

from raystp.slides.inputs.copies import find_copies

CONTENTS = {"a": "1", "b": "2", "c": "1", "d": "unreadable", "e": "unreadable", "f": "absent", "g": "absent", "h": "2"}


def test_slides_of_one_content_are_named_with_their_patients() -> None:
    patients = dict(zip(CONTENTS, ["P1", "P2", "P3", "P4", "P5", "P6", "P7", "P2"], strict=True))
    leak, within = find_copies(CONTENTS, patients)
    assert (leak.slides, leak.is_leak) == (("a", "c"), True)
    assert leak.sentence().startswith(
        "slides 'a' (patient 'P1') and 'c' (patient 'P3') have the same content: a possible"
    )
    assert (within.slides, within.is_leak) == (("b", "h"), False)
    assert within.sentence() == "slides 'b' (patient 'P2') and 'h' (patient 'P2') have the same content"


def test_an_unknown_patient_is_no_second_patient() -> None:
    (found,) = find_copies({"a": "1", "b": "1"}, {"a": "", "b": "P"})
    assert not found.is_leak
