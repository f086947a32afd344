"""A patient does not judge themselves unless the protocol says so by name."""

import pytest

from raystp.errors import LeakError
from raystp.impute.leak import check_patients


def test_the_queries_own_patient_in_the_bank_is_refused_by_name() -> None:
    with pytest.raises(
        LeakError, match=r"own patient 'B'.*protocol 'patient' refuses.*`same_patient: allow`, as `section`"
    ):
        check_patients(["A", "B", "B"], ["C", "B"], same_patient="refuse", protocol="patient")
    with pytest.raises(LeakError, match="own 2 patients 'A', 'B'"):
        check_patients(["A", "B"], ["B", "A"], same_patient="refuse", protocol="patient")


def test_a_protocol_that_allows_it_gets_the_shared_patients_to_print() -> None:
    assert check_patients(["C", "B", "A"], ["B", "A", "A"], same_patient="allow", protocol="section") == ["A", "B"]


def test_other_patients_share_nothing() -> None:
    assert check_patients(["A"], ["B"], same_patient="refuse", protocol="patient") == []
    assert check_patients(["A"], ["B"], same_patient="allow", protocol="section") == []
