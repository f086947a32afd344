"""Each reader of foreign files gives a result or one short error for changed files; the long form is `make fuzz`."""

import logging
import warnings
from collections.abc import Iterator

import pytest

from tests.security.fuzz.run import deal, run_target
from tests.security.fuzz.target import outcome, scratch, seeded
from tests.security.fuzz.targets import TARGETS

EXECUTIONS = 3
"""Of each target in the short form."""
ELSEWHERE = {"lists and tables", "h5ad and h5", "published models"}
"""Groups that are tested so in `test_text_fuzz.py`, `expression/readers/test_fuzz.py` and `steps/publish`."""


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    logging.disable(logging.CRITICAL)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of numpy and anndata, about damaged files
        yield
    logging.disable(logging.NOTSET)


@pytest.mark.parametrize("group", sorted({one.group for one in TARGETS.values()} - ELSEWHERE))
def test_a_changed_file_is_read_or_refused_in_a_short_message(group: str) -> None:
    finds = []
    for target in (one for one in TARGETS.values() if one.group == group and one.share):
        with scratch() as folder:
            execute = target.prepare(folder)
            outcomes = [(seed, *outcome(execute, seeded(target.name, seed))) for seed in range(EXECUTIONS)]
        finds += [(target.name, seed, what) for seed, ended, what in outcomes if ended == "find"]
    assert finds == []


@pytest.mark.faults
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("name", TARGETS)
def test_thousands_of_changed_files_are_read_or_refused(name: str) -> None:
    count = run_target(TARGETS[name], range(10_000, 10_000 + deal(60_000, list(TARGETS.values()))[name]))
    assert count.finds == []
    assert count.read + count.refused == count.executions > 0


def test_all_executions_are_dealt() -> None:
    dealt = deal(1_000_000, list(TARGETS.values()))
    assert set(dealt) == set(TARGETS)
    assert abs(sum(dealt.values()) - 1_000_000) < len(TARGETS)
