"""No patient is predicted from their own data, unless the protocol allows it or their rows are excluded."""

import pytest

from raystp.errors import ConfigError, LeakError
from raystp.impute.selection import KnownPatients, LeakRules, SamePatient, check_patients, select_slides

PATIENTS = {"S1": "A", "S2": "B", "S3": "A", "S4": "C"}
KNOWN = KnownPatients(frozenset("A"), frozenset({"S1"}), frozenset("B"), frozenset({"S2"}))


def test_a_query_patient_in_the_index_is_refused_by_name() -> None:
    with pytest.raises(
        LeakError, match=r"own patient 'B'.*'patient' refuses.*`same_patient: allow`, such as `section`"
    ):
        check_patients(["A", "B", "B"], ["C", "B"], same_patient="refuse", protocol="patient")
    with pytest.raises(LeakError, match="own 2 patients 'A', 'B'"):
        check_patients(["A", "B"], ["B", "A"], same_patient="refuse", protocol="patient")


def test_a_protocol_that_allows_it_returns_the_shared_patients() -> None:
    assert check_patients(["C", "B", "A"], ["B", "A", "A"], same_patient="allow", protocol="section") == ["A", "B"]


def test_different_patients_share_nothing() -> None:
    assert check_patients(["A"], ["B"], same_patient="refuse", protocol="patient") == []
    assert check_patients(["A"], ["B"], same_patient="allow", protocol="section") == []


def test_by_default_all_slides_of_unseen_patients_are_selected() -> None:
    chosen = select_slides(PATIENTS, KNOWN, LeakRules("patient", "refuse"), named=None, source="embed/x")
    assert (chosen.slides, chosen.shared, chosen.left_out) == (["S4"], [], {})


@pytest.mark.parametrize("same_patient", ["refuse", "allow"])
def test_a_slide_that_the_model_has_seen_is_skipped_alone_although_its_patient_is_not_stated(
    same_patient: SamePatient,
) -> None:
    unstated = {"S1": "", "S2": "", "S5": ""}
    chosen = select_slides(unstated, KNOWN, LeakRules("any", same_patient), named=None, source="embed/x")
    assert chosen.slides == ["S5"]


def test_a_protocol_by_section_selects_other_slides_of_seen_patients_and_names_these() -> None:
    chosen = select_slides(PATIENTS, KNOWN, LeakRules("section", "allow"), named=None, source="embed/x")
    assert (chosen.slides, chosen.shared) == (["S3", "S4"], ["A"])


def test_leaving_out_own_rows_selects_slides_of_the_index_but_none_of_the_model() -> None:
    rules = LeakRules("patient", "refuse", leave_out=True)
    chosen = select_slides(PATIENTS, KNOWN, rules, named=None, source="embed/x")
    assert (chosen.slides, chosen.left_out) == (["S2", "S4"], {"S2": "B"})
    with pytest.raises(LeakError, match="built from 'S1'"):
        select_slides(PATIENTS, KNOWN, rules, named=["S1"], source="embed/x")


def test_a_slide_without_embeddings_and_an_empty_selection_are_refused() -> None:
    rules = LeakRules("patient", "refuse")
    with pytest.raises(ConfigError, match=r"slides: no embeddings of 'S9' in embed/x; it has embeddings of S1, S2"):
        select_slides(PATIENTS, KNOWN, rules, named=["S9"], source="embed/x")
    with pytest.raises(ConfigError, match="protocol 'patient' allows no slide of embed/x"):
        select_slides({"S1": "A"}, KNOWN, rules, named=None, source="embed/x")
