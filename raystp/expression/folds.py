"""Split sections into train, validation and test, and detect patients on both sides.

The default keeps patients whole. A split by section is for data of one patient: other sections of a test patient may
then be on the training side. The split records it (`same_patient`), and every score is printed with it.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float

from raystp.errors import ConfigError, LeakError, SectionError, some

FEWEST_FOLDS = 2
"""Fewest patients or sections of which one can be held out."""


@dataclass(frozen=True)
class Split:
    """Names of the sections on each side, in the given order."""

    train: tuple[str, ...]
    validation: tuple[str, ...]
    test: tuple[str, ...]
    same_patient: bool
    """Whether a patient of a test section has other sections on the training side (train or validation)."""


def split_by_patient(
    patients: Mapping[str, str],
    *,
    test: Sequence[str],
    validation: Sequence[str] = (),
    train: Sequence[str] | None = None,
) -> Split:
    """Split sections (`patients` is section -> patient); `train` defaults to all other sections.

    Validation belongs to the training side and may share patients with train. Raises LeakError where a patient of a
    test section also has a section in train or validation. Raises ConfigError for an unknown section, a section on two
    sides, and an empty train.
    """
    split = split_by_section(patients, test=test, validation=validation, train=train)
    if split.same_patient:
        tested = {patients[name] for name in split.test}
        siblings = [name for name in (*split.train, *split.validation) if patients[name] in tested]
        shared = {patients[name] for name in siblings}
        msg = (
            f"patient {some(sorted(shared))} is on both sides: {some(siblings)} train or validate, "
            f"{some([name for name in split.test if patients[name] in shared])} test; move them to one side, or use "
            "the protocol `section`, which is printed with every score"
        )
        raise LeakError(msg)
    return split


def split_by_section(
    patients: Mapping[str, str],
    *,
    test: Sequence[str],
    validation: Sequence[str] = (),
    train: Sequence[str] | None = None,
) -> Split:
    """Split sections like `split_by_patient`, but allow other sections of a test patient on the training side.

    The split then has `same_patient=True`.
    """
    named = [*test, *validation, *(train or ())]
    unknown = [name for name in dict.fromkeys(named) if name not in patients]
    if unknown:
        msg = f"no section {some(unknown)}; there are {some(sorted(patients), 20)}"
        raise ConfigError(msg)
    duplicates = sorted({name for name in named if named.count(name) > 1})
    if duplicates:
        msg = f"sections {some(duplicates)} are listed twice: a section is on one side, train, validation or test"
        raise ConfigError(msg)
    rest = tuple(train) if train is not None else tuple(name for name in patients if name not in named)
    if not rest:
        msg = f"no section is left to train on: of {len(patients)}, {len(test)} test and {len(validation)} validate"
        raise ConfigError(msg)
    tested = {patients[name] for name in test}
    same = any(patients[name] in tested for name in (*rest, *validation))
    return Split(train=rest, validation=tuple(validation), test=tuple(test), same_patient=same)


def sections_named(names: Sequence[str], patients: Mapping[str, str]) -> list[str]:
    """Return sections; the name of a patient stands for all of the patient's sections. Unknown names stay."""
    return [
        section
        for name in names
        for section in ([name] if name in patients else [s for s, p in patients.items() if p == name] or [name])
    ]


def leave_one_out(patients: Mapping[str, str]) -> tuple[Literal["patient", "section"], dict[str, list[str]]]:
    """Return what is held out in turn, and the name of each fold -> its sections; `patients` is section -> patient.

    Whole patients are held out where there are several, so that a fold predicts a new one; else sections. Raises
    ConfigError for fewer than two sections.
    """
    if len(patients) < FEWEST_FOLDS:
        msg = (
            f"fit.select=cv holds out each training patient or section in turn, and {some(list(patients))} alone is on "
            "the training side: add sections, or set split.validation_block=0.2 and fit.select=best_pcc"
        )
        raise ConfigError(msg)
    if len(set(patients.values())) < FEWEST_FOLDS:
        return "section", {section: [section] for section in patients}
    named: dict[str, list[str]] = {}
    for section, patient in patients.items():
        named.setdefault(patient, []).append(section)
    return "patient", named


def patient_folds(
    patients: Iterable[str],
    count: int | Literal["patient"],
    *,
    seed: int = 0,
    strata: Mapping[str, str] | None = None,
) -> list[tuple[str, ...]]:
    """Divide patients at random into `count` folds whose sizes differ by at most one, or into one fold per patient.

    Each patient is in exactly one fold. With `strata` (patient -> stratum), the patients of each stratum in two folds
    differ by at most one too. The result depends on the set of names and the seed, not on the order. Raises ConfigError
    for fewer than two folds, and for more folds than patients.
    """
    names = sorted(set(patients))
    folds = len(names) if count == "patient" else count
    if not 2 <= folds <= len(names):  # noqa: PLR2004 -- one fold leaves no patient to train on
        msg = f"folds: {folds} folds of {len(names)} patients: set 2 to {len(names)}, or add patients"
        raise ConfigError(msg)
    order = np.random.default_rng(seed).permutation(len(names)).tolist()
    if strata is not None:
        order = sorted(order, key=lambda number: strata[names[number]])
    return [tuple(sorted(names[number] for number in order[fold::folds])) for fold in range(folds)]


def spatial_block(xy: Float[np.ndarray, "spot 2"], share: float) -> Bool[np.ndarray, "spot"]:
    """Return which spots of a section validate: the `share` at the far end of the section's longer side.

    The block is one contiguous end of the tissue. Spots drawn at random would have training spots next to them, which
    leaks their expression; only the spots along the cut have such neighbours here. The number of spots is rounded, at
    least 1 and at most all but 1. Ties in one coordinate are decided by the other.

    Raises ConfigError for a share outside (0, 1), SectionError for fewer than two spots or positions that are not
    finite.
    """
    if not 0 < share < 1:
        msg = f"the validation share of a section must be between 0 and 1, got {share}"
        raise ConfigError(msg)
    if len(xy) < 2 or not np.isfinite(xy).all():  # noqa: PLR2004 -- one to train on, one to validate
        msg = f"a section of {len(xy)} spots cannot be split: at least 2 spots with finite positions are needed"
        raise SectionError(msg)
    axis = int(np.argmax(np.ptp(xy, axis=0)))  # x where both sides are equally long
    order = np.lexsort((xy[:, 1 - axis], xy[:, axis]))
    chosen = np.zeros(len(xy), dtype=bool)
    chosen[order[len(xy) - min(max(round(share * len(xy)), 1), len(xy) - 1) :]] = True
    return chosen
