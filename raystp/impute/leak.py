"""Whether a reference bank would let a patient judge themselves."""

from collections.abc import Iterable
from typing import Literal

from raystp.errors import LeakError, some


def check_patients(
    bank_patients: Iterable[str],
    query_patients: Iterable[str],
    *,
    same_patient: Literal["refuse", "allow"],
    protocol: str,
) -> list[str]:
    """Return the patients that are both in the bank and among the queries, sorted, to be printed with every score.

    Raises:
        LeakError: there are such patients and the protocol does not allow them.
    """
    shared = sorted(set(bank_patients) & set(query_patients))
    if shared and same_patient == "refuse":
        who = "patient" if len(shared) == 1 else f"{len(shared)} patients"
        msg = (
            f"the reference bank holds spots of the queries' own {who} {some(shared)}, so they would judge themselves, "
            f"and protocol '{protocol}' refuses that: leave them out of the bank, or choose a protocol that says "
            "`same_patient: allow`, as `section` does; its name is then printed with every score"
        )
        raise LeakError(msg)
    return shared
