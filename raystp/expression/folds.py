"""Which sections train, validate and test, and that no patient judges themselves unawares.

The default keeps patients whole. Splitting by section is for data of one patient: other sections of a test patient may
then be on the training side, the split says so (`same_patient`), and whoever prints a figure prints that with it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float

from raystp.errors import ConfigError, LeakError, SectionError, some


@dataclass(frozen=True)
class Split:
    """Section names on each side, in the order they were given."""

    train: tuple[str, ...]
    validation: tuple[str, ...]
    test: tuple[str, ...]
    same_patient: bool
    """A patient of the test sections has other sections on the training side (train or validation)."""


def split_by_patient(
    patients: Mapping[str, str],
    *,
    test: Sequence[str],
    validation: Sequence[str] = (),
    train: Sequence[str] | None = None,
) -> Split:
    """Split sections (`patients` is section -> patient); `train` is all the rest unless it is given.

    Raises LeakError where a patient of a test section also has a section in train or validation. Validation belongs to
    the training side, and may share patients with train. Raises ConfigError for unknown names, a section with two
    roles, and an empty train.
    """
    split = split_by_section(patients, test=test, validation=validation, train=train)
    if split.same_patient:
        tested = {patients[name] for name in split.test}
        siblings = [name for name in (*split.train, *split.validation) if patients[name] in tested]
        shared = {patients[name] for name in siblings}
        msg = (
            f"patient {some(sorted(shared))} is on both sides: {some(siblings)} train or validate, "
            f"{some([name for name in split.test if patients[name] in shared])} test; move them to one side, or use "
            "the protocol `section`, which says so with every figure"
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
    """Split sections as `split_by_patient` does, but allow a test patient's other sections on the training side.

    The split then says `same_patient=True`.
    """
    named = [*test, *validation, *(train or ())]
    unknown = [name for name in dict.fromkeys(named) if name not in patients]
    if unknown:
        msg = f"no such section {some(unknown)}; there are {some(sorted(patients), 20)}"
        raise ConfigError(msg)
    twice = sorted({name for name in named if named.count(name) > 1})
    if twice:
        msg = f"sections {some(twice)} are named twice: a section has one role, train, validation or test"
        raise ConfigError(msg)
    rest = tuple(train) if train is not None else tuple(name for name in patients if name not in named)
    if not rest:
        msg = f"no section is left to train on: of {len(patients)}, {len(test)} test and {len(validation)} validate"
        raise ConfigError(msg)
    tested = {patients[name] for name in test}
    same = any(patients[name] in tested for name in (*rest, *validation))
    return Split(train=rest, validation=tuple(validation), test=tuple(test), same_patient=same)


def spatial_block(xy: Float[np.ndarray, "spot 2"], share: float) -> Bool[np.ndarray, "spot"]:
    """Say which spots of a section validate: the `share` farthest along the longer side of the section.

    One contiguous end of the tissue, since spots drawn at random have neighbours in training that know the answer
    (those along the cut still do). The count is rounded, at least 1 and at most all but 1; spots of equal coordinate
    go by the other one. Raises ConfigError for a share outside (0, 1), SectionError for fewer than two spots or places
    that are not finite.
    """
    if not 0 < share < 1:
        msg = f"the validation share of a section lies between 0 and 1, got {share}"
        raise ConfigError(msg)
    if len(xy) < 2 or not np.isfinite(xy).all():  # noqa: PLR2004 -- one to train on, one to validate
        msg = f"a section of {len(xy)} spots cannot be cut in two: at least 2 spots with finite places are needed"
        raise SectionError(msg)
    along = int(np.argmax(np.ptp(xy, axis=0)))  # x, where both are as long
    order = np.lexsort((xy[:, 1 - along], xy[:, along]))
    chosen = np.zeros(len(xy), dtype=bool)
    chosen[order[len(xy) - min(max(round(share * len(xy)), 1), len(xy) - 1) :]] = True
    return chosen
