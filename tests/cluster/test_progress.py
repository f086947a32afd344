"""Progress without a terminal: plain lines on stderr, with rate, remaining time and failures."""

import logging
import re

import pytest

from raystp.cluster import progress
from raystp.cluster.progress import ConsoleHandler, Progress, log_to_console


def test_short_work_logs_one_line_at_its_end(capsys: pytest.CaptureFixture[str]) -> None:
    with Progress("embed", 96, "tile") as work:
        work.add(64)
        work.add(32)
    output = capsys.readouterr()
    assert re.fullmatch(r"embed: 96 of 96 tiles in \d+\.\d s, \d+\.\d tiles/s\n", output.err)
    assert output.out == ""


def test_long_work_logs_remaining_time_and_failures(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "LINE_INTERVAL_S", 0.0)
    with Progress("tile", 4, "slide") as work:
        work.add(1)
        work.add(3, failed=2)
    first, second, last = capsys.readouterr().err.splitlines()
    assert re.fullmatch(r"tile: 1 of 4 slides in .* slides/s, about \d+ s to go", first)
    assert re.fullmatch(r"tile: 4 of 4 slides in .* slides/s, 2 failed", second)
    assert last.startswith("tile: 4 of 4 slides")


def test_work_that_raises_logs_no_final_line(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ZeroDivisionError), Progress("embed", 2, "tile"):
        _ = 1 // 0
    assert capsys.readouterr().err == ""


def test_lines_have_no_terminal_control_characters(capsys: pytest.CaptureFixture[str]) -> None:
    with Progress("embed", 10, "tile") as work:
        logging.getLogger("raystp").warning("a slide was skipped")
        work.add(10)
    lines = capsys.readouterr().err
    assert lines.startswith("a slide was skipped\n")
    assert "\r" not in lines
    assert "\x1b" not in lines


def test_each_message_is_printed_once_after_repeated_calls(
    capsys: pytest.CaptureFixture[str],
) -> None:
    log_to_console()
    log_to_console()
    logging.getLogger("raystp").info("one line")
    assert capsys.readouterr().err == "one line\n"
    handlers = logging.getLogger("raystp").handlers
    assert sum(isinstance(handler, ConsoleHandler) for handler in handlers) == 1
