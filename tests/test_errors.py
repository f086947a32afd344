"""The reason of a failure: a RaystpError's message, or what an unexpected exception was and where."""

import pickle
import re

import pytest

from raystp import errors, units
from raystp.errors import (
    MAX_LINE,
    ClusterError,
    ModelError,
    RaystpError,
    SlideError,
    StorageError,
    failure_as_reason,
    failure_reason,
    of_text,
    own_error,
    to_text,
)
from raystp.units import Microns, MicronsPerPixel


def _raised(error: Exception) -> Exception:
    try:
        raise error
    except Exception as caught:  # noqa: BLE001 -- with its traceback
        return caught


@failure_as_reason
def _work(value: str) -> int:
    if value == "slide":
        msg = "slide 'A' has no um/px"
        raise SlideError(msg)
    return int(value)


@failure_as_reason
def _interrupted(error: type[BaseException]) -> int:
    raise error


def test_a_raystp_error_is_its_message() -> None:
    assert failure_reason(SlideError("slide 'A' has no um/px")) == "slide 'A' has no um/px"


def test_any_other_exception_is_its_class_and_its_message_in_one_line() -> None:
    assert failure_reason(_raised(ValueError("a\n  b"))) == "ValueError: a b"
    assert failure_reason(_raised(KeyError("x"))) == "KeyError: 'x'"
    assert failure_reason(_raised(ZeroDivisionError())) == "ZeroDivisionError: no message"


def test_an_exception_out_of_the_package_has_its_last_line_there() -> None:
    with pytest.raises(ZeroDivisionError) as caught:
        units.to_level0(Microns(1.0), MicronsPerPixel(0.0))
    expected = r"ZeroDivisionError: float division by zero \(raystp/units\.py:\d+\)"
    assert re.fullmatch(expected, failure_reason(caught.value))


def test_a_long_message_is_cut() -> None:
    reason = failure_reason(_raised(ValueError("x" * 10_000)))
    assert reason == f"ValueError: {'x' * errors.REASON_CHARACTERS} ..."


def test_numpy_s_own_memory_error_has_the_known_name() -> None:
    import numpy as np  # noqa: PLC0415 -- only here

    with pytest.raises(MemoryError) as caught:
        np.empty(1 << 60, np.uint8)
    assert failure_reason(caught.value).startswith("MemoryError: Unable to allocate")


def test_the_cause_of_a_wrapper_is_described() -> None:
    class WrapperError(SlideError):  # as Ray's RayTaskError, which is also of the class of its cause
        cause: Exception = SlideError("slide 'A' has no um/px")

    class OtherWrapperError(WrapperError):
        cause = ZeroDivisionError("x")

    assert failure_reason(WrapperError("430 lines")) == "slide 'A' has no um/px"
    assert failure_reason(OtherWrapperError("430 lines")) == "ZeroDivisionError: x"
    assert str(own_error(OtherWrapperError("430 lines"))) == "ZeroDivisionError: x"


@pytest.mark.parametrize("error", [SlideError("slide 'A': no um/px"), ModelError(""), ClusterError("a\nb")])
def test_an_error_is_the_same_after_its_way_as_text(error: RaystpError) -> None:
    back = of_text(to_text(error))
    assert (type(back), str(back)) == (type(error), str(error))


@pytest.mark.parametrize("text", ["Path: x", "Item: x", "x", "NoSuchError: x"])
def test_a_text_of_no_known_class_is_kept_whole(text: str) -> None:
    assert (type(of_text(text)), str(of_text(text))) == (ClusterError, text)


def test_an_unexpected_exception_goes_as_a_cluster_error_with_its_class() -> None:
    assert to_text(_raised(ValueError("a: b"))) == "ClusterError: ValueError: a: b"


def test_the_decorated_work_returns_its_result_or_the_reason() -> None:
    assert _work("7") == 7
    assert _work("slide") == "slide 'A' has no um/px"
    assert _work("seven") == "ValueError: invalid literal for int() with base 10: 'seven'"
    assert pickle.loads(pickle.dumps(_work)) is _work  # as Ray sends it


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_an_end_of_the_process_is_not_a_failure(error: type[BaseException]) -> None:
    with pytest.raises(error):
        _interrupted(error)


def test_a_long_line_of_a_message_loses_its_middle() -> None:
    error = StorageError(f"cannot read /{'9' * 100_000}/end: the file has no such name\n  the next line")
    first, second = str(error).split("\n")
    assert len(first) <= MAX_LINE + len("...")
    assert first.startswith("cannot read /999")
    assert first.endswith("/end: the file has no such name")
    assert second == "  the next line"
    assert str(pickle.loads(pickle.dumps(error))) == str(error)
