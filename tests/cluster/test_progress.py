"""Progress without a terminal: whole lines, seldom, on stderr; with the rate, what is left, and what failed."""

import logging
import re

import pytest

from raystp.cluster import progress
from raystp.cluster.progress import ConsoleHandler, Progress, log_to_console


def test_log_gets_one_line_at_the_end_of_short_work(capsys: pytest.CaptureFixture[str]) -> None:
    with Progress("embed", 96, "tile") as work:
        work.add(64)
        work.add(32)
    told = capsys.readouterr()
    assert re.fullmatch(r"embed: 96 of 96 tiles in \d+\.\d s, \d+\.\d tiles/s\n", told.err)
    assert told.out == ""


def test_long_work_says_how_long_it_has_to_go_and_what_failed(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "LINE_EVERY_S", 0.0)
    with Progress("tile", 4, "slide") as work:
        work.add(1)
        work.add(3, failed=2)
    first, second, last = capsys.readouterr().err.splitlines()
    assert re.fullmatch(r"tile: 1 of 4 slides in .* slides/s, about \d+ s to go", first)
    assert re.fullmatch(r"tile: 4 of 4 slides in .* slides/s, 2 failed", second)
    assert last.startswith("tile: 4 of 4 slides")


def test_work_that_breaks_off_claims_no_end(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ZeroDivisionError), Progress("embed", 2, "tile"):
        _ = 1 // 0
    assert capsys.readouterr().err == ""


def test_no_line_holds_what_only_a_terminal_understands(capsys: pytest.CaptureFixture[str]) -> None:
    with Progress("embed", 10, "tile") as work:
        logging.getLogger("raystp").warning("a slide is left out")
        work.add(10)
    told = capsys.readouterr().err
    assert told.startswith("a slide is left out\n")
    assert "\r" not in told
    assert "\x1b" not in told


def test_each_message_is_printed_once_however_often_the_console_is_asked_for(
    capsys: pytest.CaptureFixture[str],
) -> None:
    log_to_console()
    log_to_console()
    logging.getLogger("raystp").info("one line")
    assert capsys.readouterr().err == "one line\n"
    handlers = logging.getLogger("raystp").handlers
    assert sum(isinstance(handler, ConsoleHandler) for handler in handlers) == 1
