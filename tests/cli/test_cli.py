"""The command line: messages and exit statuses; jobs and conf files agree with the steps."""

import ast
import contextlib
import copy
import errno
import functools
import importlib
import json
import os
import re
import runpy
import signal
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from ray.exceptions import RayActorError, RayTaskError

from raystp import cli
from raystp.artifacts import Artifact, ArtifactWriter, create_or_open
from raystp.cli import commands, result
from raystp.config import StepConfig
from raystp.digests import digest_of
from raystp.errors import ConfigError
from raystp.slides.table import read_slide_table
from raystp.steps import package_of
from raystp.steps.spots import step as spots
from tests.conftest import ROOT

JOBS = sorted(ROOT.glob("jobs/*.py"))
CONFIGS = sorted(path for step in commands.STEPS for path in ROOT.glob(f"conf/{step}/*.yaml"))


def _config_of(step: str) -> type[StepConfig[Any]]:
    config: type[StepConfig[Any]] = importlib.import_module(f"{package_of(step)}.step").CONFIG
    assert commands.config_of(step) is config
    return config  # type: ignore[no-any-return]  # mypy narrows it to the Any of `config_of`


def _spots_done(
    tmp_path: Path, failures: list[dict[str, object]], notes: Mapping[str, object] | None = None
) -> list[str]:
    """Finish the artifact of a `spots` run as the step itself would name it; return the run's command line."""
    (tmp_path / "slides.csv").write_text("slide,path,patient,layout,counts\nA,A.svs,P,scverse,A.h5ad\n")
    arguments = ["spots", "--set", f"slides={tmp_path / 'slides.csv'}", "--set", f"run.store={tmp_path / 'store'}"]
    (row,) = read_slide_table(str(tmp_path / "slides.csv"), None, "store")
    config = spots.CONFIG.load(None, arguments[2::2])
    draft = create_or_open(config, "spots", {"sections": digest_of([spots._identity(row)])})  # the step's own naming
    assert isinstance(draft, ArtifactWriter)
    draft.finish({"sections": 1, "spots": 7}, failures, notes or {"sections": {}})
    return arguments


def test_equal_work_is_not_repeated(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(_spots_done(tmp_path, [])) == 0
    printed = capsys.readouterr().out.splitlines()
    assert printed[0].startswith(f"spots: {tmp_path / 'store' / 'spots' / 'default-'}")
    assert printed[1:3] == ["  1 sections", "  7 spots"]
    assert "nothing was computed" in printed[3]
    last = json.loads(printed[4])
    assert (last["step"], last["status"], last["exit"], last["done_before"]) == ("spots", "done", 0, True)
    assert last["rows"] == {"sections": 1, "spots": 7}
    assert last["artifact"] == printed[0].removeprefix("spots: ")


def test_failures_are_printed_and_the_exit_status_is_3(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    failures: list[dict[str, object]] = [{"slide": "A", "stage": "spots", "reason": "A.h5ad is damaged"}]
    assert cli.main(_spots_done(tmp_path, failures)) == 3
    printed = capsys.readouterr().out
    assert "  failed at spots: A: A.h5ad is damaged\n" in printed
    last = json.loads(printed.splitlines()[-1])
    assert (last["status"], last["exit"], last["failures"]) == ("incomplete", 3, 1)
    assert last["first_failures"] == failures


@pytest.mark.parametrize(
    ("max_failed", "status"), [("0", 3), ("1", 3), ("2", 0), ("0.1", 3), ("0.19", 3), ("0.2", 0), ("1.0", 0)]
)
def test_up_to_max_failed_slides_the_exit_status_is_0(
    max_failed: str, status: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    failures: list[dict[str, object]] = [{"slide": name, "stage": "spots", "reason": "damaged"} for name in "ABB"]
    words = _spots_done(tmp_path, failures, {"sections": {str(number): {} for number in range(8)}})
    assert cli.main([*words, "--run.max-failed", max_failed]) == status
    printed = capsys.readouterr().out.splitlines()
    verb = "does not allow" if status else "allows"
    assert printed[-2] == f"  2 of 10 failed; run.max_failed={max_failed} {verb} that"
    last = json.loads(printed[-1])
    assert (last["status"], last["exit"]) == ("incomplete" if status else "done", status)
    assert (last["failures"], last["failed_slides"], last["tried_slides"]) == (3, 2, 10)
    assert last["max_failed"] == float(max_failed)


def test_a_limit_of_failures_is_a_number_or_a_share(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = _spots_done(tmp_path, [])
    for wrong in ("-1", "1.5", "many", "true"):
        assert cli.main([*words, "--run.max-failed", wrong]) == 1
        assert "Input should be a number of slides (5), or a share of them" in capsys.readouterr().out


def test_many_failures_of_one_slide_are_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [("A", f"tile {number}: damaged") for number in range(30)] + [("B", "it has no tile")]
    failures: list[dict[str, object]] = [{"slide": slide, "stage": "embed", "reason": reason} for slide, reason in rows]
    assert cli.main(_spots_done(tmp_path, failures)) == 3
    printed = capsys.readouterr().out
    assert "  failed at embed: A: tile 0: damaged (and 29 more)\n  failed at embed: B: it has no tile\n" in printed
    last = json.loads(printed.splitlines()[-1])
    assert (last["failures"], last["first_failures"]) == (31, [failures[0], failures[30]])


def test_an_error_is_one_message_and_the_exit_status_is_1(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    table = tmp_path / "none.csv"
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    assert cli.main(["spots", "--set", f"slides={table}"]) == 1
    told = capsys.readouterr()
    assert told.err.startswith(
        f"ConfigError: slides: no slide table at {table}; it is a CSV with the columns slide, path"
    )
    assert told.err.count("\n") == 1
    last = json.loads(told.out)
    assert (last["status"], last["exit"], last["error"]) == ("failed", 1, "ConfigError")
    assert told.err == f"ConfigError: {last['message']}\n"


@pytest.mark.parametrize(("is_terminal", "printed"), [((True, True), (0, 1)), ((False, True), (1, 1))])
def test_a_person_reads_an_error_on_stderr(
    is_terminal: tuple[bool, bool],
    printed: tuple[int, int],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: is_terminal[0])
    monkeypatch.setattr(sys.stderr, "isatty", lambda: is_terminal[1])
    assert cli.main(["spots", "slides=none.csv"]) == 1
    told = capsys.readouterr()
    assert (told.out.count("no slide table"), told.err.count("no slide table")) == printed


def test_a_program_reads_an_error_once_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["spots", "slides=none.csv"]) == 1
    told = capsys.readouterr()
    assert (told.out.count("no slide table"), told.err) == (1, "")


def test_on_a_terminal_there_is_no_line_for_a_scheduler(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    assert cli.main(_spots_done(tmp_path, [])) == 0
    assert "{" not in capsys.readouterr().out


def test_a_submitted_job_refuses_relative_paths_all_at_once(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", "{}")
    fields = ["tiles=tile/a", "encoder.weights=w.safetensors", "run.store=store"]
    assert cli.main(["embed", *(word for field in fields for word in ("--set", field))]) == 1
    assert json.loads(capsys.readouterr().out)["message"] == (
        "a submitted job runs in a copy of the code that is deleted after the job:\n"
        "  run.store: 'store' is relative; give an absolute path or a URI\n"
        "  encoder.weights: 'w.safetensors' is relative; give an absolute path or a URI"
    )


def test_an_unknown_key_is_refused_with_the_nearest_known_one(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["tile", "--set", "slides=a.csv", "--set", "tile_ums=64"]) == 1
    assert json.loads(capsys.readouterr().out)["message"] == (
        "the command line is not a valid config of `raystp tile`:\n"
        "  tile_ums: there is no such field; did you mean 'tile_um'?"
    )


def test_a_stopped_run_says_that_finished_work_is_kept(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def stopped(_: object) -> Artifact:
        raise KeyboardInterrupt

    monkeypatch.setattr(spots, "run", stopped)
    assert cli.main(["spots", "--set", "slides=a.csv"]) == 1
    assert "finished work is kept" in json.loads(capsys.readouterr().out)["message"]


def _broken(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> int:
    def broken(_: object) -> Artifact:
        raise error

    monkeypatch.setattr(spots, "run", broken)
    return cli.main(["spots", "--set", "slides=a.csv"])


def test_an_unexpected_exception_has_a_short_traceback_and_the_line_for_a_scheduler(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    assert _broken(monkeypatch, ZeroDivisionError("x")) == 1
    told = capsys.readouterr()
    last = json.loads(told.out)
    assert (last["status"], last["exit"], last["error"]) == ("failed", 1, "ZeroDivisionError")
    assert re.match(r"ZeroDivisionError: x \(raystp/cli/entry\.py:\d+\)\. This is a fault of raystp", last["message"])
    assert told.err.startswith("Traceback (most recent call last):\n")
    assert told.err.endswith(f"{last['message']}\n")
    assert told.err.count("\n") < 20


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (OSError(errno.ENOSPC, "No space left on device", "/tmp/x"), "there is no space left at /tmp/x"),
        (PermissionError(errno.EACCES, "Permission denied", "/root/.ray"), "access is denied at /root/.ray"),
        (OSError("AF_UNIX path length cannot exceed 107 bytes: /x"), "is too long for Ray's sockets"),
        (KeyError("getpwuid(): uid not found: 54321"), "has no name or home folder on this machine"),
        (MemoryError("x"), "this machine is out of memory (MemoryError: x"),
        (RayActorError(), "Ray failed (RayActorError: "),
        (OSError(errno.EMFILE, "Too many open files"), "too many files are open"),
    ],
    ids=["full", "denied", "sockets", "passwd", "memory", "ray", "files"],
)
def test_an_exception_of_the_machine_is_a_sentence(
    error: Exception, expected: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _broken(monkeypatch, error) == 1
    told = capsys.readouterr()
    last = json.loads(told.out)
    assert expected in last["message"]
    assert last["error"] == "ClusterError"
    assert told.err == ""


def test_an_error_that_ray_wraps_is_the_error_itself(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    kind: Any = RayTaskError  # Ray ships it without types
    wrapped = kind("f", "a traceback\nof 200 lines", ConfigError("name: too long")).as_instanceof_cause()
    assert isinstance(wrapped, ConfigError)
    assert _broken(monkeypatch, wrapped) == 1
    last = json.loads(capsys.readouterr().out)
    assert (last["error"], last["message"]) == ("ConfigError", "name: too long")


def test_sigterm_stops_like_ctrl_c(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def waiting(_: object) -> Artifact:
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(60)
        raise AssertionError

    before = signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr(spots, "run", waiting)
    assert cli.main(["spots", "--set", "slides=a.csv"]) == 1
    assert json.loads(capsys.readouterr().out)["message"].startswith("stopped; finished work is kept")
    assert signal.getsignal(signal.SIGTERM) is before


@pytest.mark.parametrize(
    "content", [None, b"\xff\xfe", b"slides: [", b""], ids=["a folder", "binary", "not YAML", "empty"]
)
def test_a_config_file_that_cannot_be_read_is_an_error_with_the_line_for_a_scheduler(
    content: bytes | None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "config.yaml"
    file.mkdir() if content is None else file.write_bytes(content)
    assert cli.main(["spots", "--config", str(file)]) == 1
    told = capsys.readouterr()
    last = json.loads(told.out)
    assert last["error"] == "ConfigError"
    assert str(file) in last["message"]
    assert "Traceback" not in told.err


def test_warnings_of_work_done_before_are_counted_and_the_first_are_printed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    notes = {"sections": {}, "warnings": {"A": ["its pitch is 90 um", "x"], "B": [f"warning {n}" for n in range(30)]}}
    assert cli.main(_spots_done(tmp_path, [], notes)) == 0
    printed = capsys.readouterr().out
    assert "  32 warnings\n  warning: A: its pitch is 90 um\n  warning: A: x\n  warning: B: warning 0\n" in printed
    assert printed.count("  warning: ") == result.SHOWN_WARNINGS
    last = json.loads(printed.splitlines()[-1])
    assert last["warnings"] == 32
    assert len(last["first_warnings"]) == result.SHOWN_FAILURES


def test_every_step_is_a_module_with_a_config_of_its_name_and_a_run() -> None:
    for step in commands.STEPS:
        module = importlib.import_module(f"{package_of(step)}.step")
        assert step == module.STEP
        assert issubclass(module.CONFIG, StepConfig)
        assert module.CONFIG.__name__ == f"{step.capitalize()}Config"
        assert callable(module.run)


def test_every_field_of_a_config_has_a_docstring_unless_its_name_is_enough() -> None:
    for step in commands.STEPS:
        fields = _config_of(step).model_fields
        bare = [name for name, field in fields.items() if not field.description]
        assert set(bare) <= {"run", "seed", "encoder", "model", "metric", "panel", "split", "bleep", "fit", "name"}, (
            step
        )


def test_every_step_but_the_demo_has_a_job_and_none_is_left_over() -> None:
    assert {job.stem for job in JOBS} == set(commands.STEPS) - {"demo"}


@pytest.mark.parametrize("job", JOBS, ids=lambda path: path.stem)
def test_a_job_is_short_and_does_nothing_when_imported(job: Path) -> None:
    text = job.read_text()
    assert len(text.splitlines()) <= 15
    *_, last = ast.parse(text).body
    assert isinstance(last, ast.If)
    assert ast.unparse(last.test) == "__name__ == '__main__'"


@pytest.mark.parametrize("job", JOBS, ids=lambda path: path.stem)
def test_a_job_is_its_step(job: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", [str(job), "--set", "no.such=1"])
    with pytest.raises(SystemExit) as caught:
        runpy.run_path(str(job), run_name="__main__")
    assert caught.value.code == 1
    assert re.search(rf"is not a valid config of `raystp {job.stem}`:", capsys.readouterr().out)


@pytest.mark.parametrize("step", commands.STEPS)
def test_every_step_has_a_smoke_config(step: str) -> None:
    assert (ROOT / "conf" / step / "smoke.yaml").is_file()


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_a_config_file_describes_its_step_and_holds_differences_only(path: Path) -> None:
    assert 5 <= len(path.read_text().splitlines()) <= 25
    config = _config_of(path.parent.name)
    loaded, values = config.load(path), yaml.safe_load(path.read_text())
    for leaf in _leaves({name: value for name, value in values.items() if name != "run"}):
        without = copy.deepcopy(values)
        *way, last = leaf
        del functools.reduce(lambda at, key: at[key], way, without)[last]
        with contextlib.suppress(ConfigError):  # a field that must be given
            assert config.of(without) != loaded, f"{'.'.join(leaf)} is the default"


def test_no_config_file_belongs_to_no_step() -> None:
    recipes = set(ROOT.glob("conf/recipes/*.yaml"))  # of the pipeline; `tests/docs/test_recipes.py` plans each
    assert sorted(set(ROOT.glob("conf/**/*.yaml")) - recipes) == CONFIGS


def _leaves(values: dict[str, Any]) -> list[tuple[str, ...]]:
    """Return the way to each single value."""
    return [
        (key, *rest) for key, value in values.items() for rest in (_leaves(value) if isinstance(value, dict) else [()])
    ]
