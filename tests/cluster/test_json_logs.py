"""`--log-format json`: every line is one JSON object with time, level, logger, step and message."""

import datetime as dt
import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest

from raystp import cli
from raystp.cli.arguments import WrongCommandLine, read_command
from raystp.cluster import json_logs
from raystp.cluster.progress import Progress, log_to_console

logger = logging.getLogger("raystp")


@pytest.fixture(autouse=True)
def _as_json() -> Iterator[None]:
    log_to_console(json_logs.JsonFormatter("pipeline"))
    yield
    log_to_console()


def lines(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def test_a_message_of_several_lines_is_one_object(capsys: pytest.CaptureFixture[str]) -> None:
    before = dt.datetime.now(dt.UTC)
    logger.warning('  S1: mpp 0.25\nis "given", not read: Größe', extra={"slide": "S1"})
    (entry,) = lines(capsys.readouterr().err)
    assert before <= dt.datetime.fromisoformat(entry.pop("time")) <= dt.datetime.now(dt.UTC)
    assert entry == {
        "level": "WARNING",
        "logger": "raystp",
        "step": "pipeline",
        "message": 'S1: mpp 0.25\nis "given", not read: Größe',
        "slide": "S1",
    }


def test_progress_states_its_step(capsys: pytest.CaptureFixture[str]) -> None:
    with Progress("embed", 96, "tile") as work:
        work.add_earlier(32)
        work.add(64)
    (entry,) = lines(capsys.readouterr().err)
    assert entry["step"] == "embed"
    assert entry["message"].startswith("embed: 96 of 96 tiles")


def test_a_record_of_a_steps_code_states_that_step() -> None:
    assert json_logs.step_of("/opt/raystp/steps/tile/step.py") == "tile"
    assert json_logs.step_of("/opt/raystp/steps/evaluate/spots/score.py") == "evaluate"
    assert json_logs.step_of("/opt/raystp/steps/failed_slides.py") == ""
    assert json_logs.step_of("/opt/raystp/storage/local_file.py") == ""
    for folder in ("/data/steps/v1/lib", "/data/raystp/steps/lib"):
        assert json_logs.step_of(f"{folder}/raystp/cluster/progress.py") == ""
        assert json_logs.step_of(f"{folder}/raystp/steps/embed/work.py") == "embed"


def test_an_error_is_an_object_too(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["tile", "--log-format", "json", "--set", "slides=absent.csv"]) == 1
    *_, error = lines(capsys.readouterr().err)
    assert (error["level"], error["step"]) == ("ERROR", "tile")
    assert "absent.csv" in error["message"]
    assert "traceback" not in error


def test_an_exception_has_its_traceback_in_the_object(capsys: pytest.CaptureFixture[str]) -> None:
    try:
        _ = 1 // 0
    except ZeroDivisionError as error:
        logger.error("unexpected", exc_info=error)
    (entry,) = lines(capsys.readouterr().err)
    assert "ZeroDivisionError" in entry["traceback"]


def test_the_flag_has_two_values() -> None:
    assert read_command(["tile", "--log-format=json"]).log_format == "json"
    assert read_command(["tile"]).log_format == "text"
    with pytest.raises(WrongCommandLine, match="--log-format 'xml' is unknown; use text or json"):
        read_command(["tile", "--log-format", "xml"])
