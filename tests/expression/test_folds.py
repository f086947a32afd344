import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from raystp.errors import ConfigError, LeakError, SectionError
from raystp.expression.folds import patient_folds, spatial_block, split_by_patient, split_by_section

HER2ST = {"B4": "B", "C2": "C", "C3": "C", "C4": "C"}


def test_whole_patients_are_held_out() -> None:
    split = split_by_patient(HER2ST, test=["B4"], validation=["C4"])
    assert (split.train, split.validation, split.test) == (("C2", "C3"), ("C4",), ("B4",))
    assert not split.same_patient


@pytest.mark.parametrize("validation", [[], ["C2", "C3"]])
def test_a_patient_on_both_sides_is_a_leak(validation: list[str]) -> None:
    with pytest.raises(
        LeakError, match=r"patient 'C' is on both sides: 'C2', 'C3' train or validate, 'C4' test.*section"
    ):
        split_by_patient(HER2ST, test=["C4"], validation=validation)


def test_a_split_by_section_records_shared_patients() -> None:
    split = split_by_section(HER2ST, test=["C4"])
    assert split.train == ("B4", "C2", "C3")
    assert split.same_patient
    assert not split_by_section(HER2ST, test=["B4"]).same_patient
    assert split_by_section(HER2ST, test=["C4"], train=["B4"], validation=["C3"]).same_patient


def test_training_sections_may_be_given() -> None:
    assert split_by_patient(HER2ST, test=["C4", "C3"], train=["B4"]).train == ("B4",)


def test_unknown_and_duplicate_sections_are_refused() -> None:
    with pytest.raises(ConfigError, match="no section 'C9'; there are 'B4', 'C2', 'C3', 'C4'"):
        split_by_patient(HER2ST, test=["C9"])
    with pytest.raises(ConfigError, match="sections 'C2' are listed twice"):
        split_by_section(HER2ST, test=["C2"], validation=["C2"])
    with pytest.raises(ConfigError, match="no section is left to train on: of 4, 2 test and 2 validate"):
        split_by_section(HER2ST, test=["B4", "C2"], validation=["C3", "C4"])


@given(
    patients=st.dictionaries(st.sampled_from("abcdefgh"), st.sampled_from("PQR"), min_size=2),
    data=st.data(),
)
def test_no_patient_is_on_both_sides(patients: dict[str, str], data: st.DataObject) -> None:
    tested = data.draw(st.sampled_from(sorted(set(patients.values()))))
    test = [name for name, patient in patients.items() if patient == tested]
    if len(test) == len(patients):
        return
    split = split_by_patient(patients, test=test)
    assert {patients[name] for name in split.train}.isdisjoint({patients[name] for name in split.test})
    assert sorted((*split.train, *split.test)) == sorted(patients)


def test_the_validation_block_is_one_end_of_the_longer_side() -> None:
    xy = np.stack(np.meshgrid(np.arange(3.0), np.arange(10.0)), axis=-1).reshape(-1, 2)
    chosen = spatial_block(xy, 0.2)
    assert xy[chosen].tolist() == [[0, 8], [1, 8], [2, 8], [0, 9], [1, 9], [2, 9]]
    assert xy[spatial_block(xy[:, ::-1], 0.1)].tolist() == [[0, 9], [1, 9], [2, 9]]


def test_both_sides_of_a_block_have_spots() -> None:
    xy = np.array([[0.0, 0.0], [1.0, 0.0], [2.0, 0.0]])
    assert spatial_block(xy, 0.01).tolist() == [False, False, True]
    assert spatial_block(xy, 0.99).tolist() == [False, True, True]
    with pytest.raises(SectionError, match="a section of 1 spots cannot be split"):
        spatial_block(xy[:1], 0.5)
    with pytest.raises(ConfigError, match=r"must be between 0 and 1, got 1\.0"):
        spatial_block(xy, 1.0)


def test_every_patient_is_in_exactly_one_fold_and_folds_are_of_about_equal_size() -> None:
    patients = [f"P{number}" for number in range(13)]
    folds = patient_folds([*patients, "P3", "P3"], 5, seed=1)
    assert sorted(name for fold in folds for name in fold) == sorted(patients)
    assert sorted(len(fold) for fold in folds) == [2, 2, 3, 3, 3]
    assert patient_folds(reversed(patients), 5, seed=1) == folds
    assert patient_folds(patients, 5, seed=2) != folds
    assert sorted(patient_folds(patients, "patient")) == sorted((name,) for name in patients)
    for count in (1, 14):
        with pytest.raises(ConfigError, match=f"{count} folds of 13 patients: set 2 to 13"):
            patient_folds(patients, count)


def test_strata_are_spread_evenly_over_the_folds() -> None:
    strata = {f"P{number:02d}": "rare" if number % 5 == 0 else "common" for number in range(23)}
    folds = patient_folds(strata, 4, seed=3, strata=strata)
    assert sorted(name for fold in folds for name in fold) == sorted(strata)
    assert sorted(len(fold) for fold in folds) == [5, 6, 6, 6]
    for stratum in ("rare", "common"):
        counts = [sum(strata[name] == stratum for name in fold) for fold in folds]
        assert max(counts) - min(counts) <= 1
    assert patient_folds(strata, 4, seed=3, strata=dict.fromkeys(strata, "one")) == patient_folds(strata, 4, seed=3)
