"""The entry point: run the command of a command line, and print its result whatever ends it."""

import contextlib
import datetime as dt
import importlib
import io
import logging
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from typing import Any

from raystp.cli.arguments import Command, WrongCommandLine, read_command
from raystp.cli.commands import TOOLS, config_of
from raystp.cli.help import general_help, step_help, tool_help
from raystp.cli.result import (
    DONE,
    FAILED,
    SHOWN_WARNINGS,
    USAGE,
    ended,
    facts,
    failed_slides,
    print_data,
    print_error,
    printed_status,
    summary,
)
from raystp.cli.template import template
from raystp.cli.tools.listing import tool_text, versions
from raystp.cluster import json_logs
from raystp.cluster.environment import explain
from raystp.errors import ClusterError, RaystpError, describe_exception, unwrapped
from raystp.steps import package_of
from raystp.steps.printed import Printed

UNEXPECTED = "This is a fault of raystp or of a library, not of the command: please report it with the lines above"

STOPPED = "stopped; finished work is kept, and the same command continues from there"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return the exit status. Whatever ends a step, the result is printed."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a name that the terminal cannot show ends no step
    logging.getLogger("tifffile").setLevel(logging.CRITICAL)  # what is wrong with a slide is a sentence of raystp
    words = sys.argv[1:] if arguments is None else arguments
    step = words[0] if words else ""
    try:
        with _terminable():
            return _answer(read_command(words))
    except WrongCommandLine as error:
        print_error(str(error))
        return ended(step, USAGE, error=type(error).__name__, message=str(error))
    except (KeyboardInterrupt, SystemExit) as error:
        print_error(STOPPED)
        return ended(step, FAILED, error=type(error).__name__, message=STOPPED)
    except Exception as error:  # noqa: BLE001 -- a scheduler needs the result of any of them
        return _failed(step, unwrapped(error))


def _answer(command: Command) -> int:
    """Run a step, or print what is asked about it."""
    if command.action == "run":
        return _run(command)
    if command.action == "dry-run":
        for text in importlib.import_module("raystp.cli.dry_run").dry_run(*_step_and_config(command)):
            print_data(text)
        return DONE
    print_data(_text(command))
    return DONE


def _text(command: Command) -> str:
    """Return the text of a command that runs no step."""
    if command.action == "version":
        return versions()
    if not command.name:
        return general_help()
    if command.name in TOOLS:
        return tool_help(command.name) if command.action == "help" else tool_text(command.name, command.words)
    kind = config_of(command.name)
    values = kind.read_values(command.config, command.overrides)
    variant = kind.variant(values)
    if command.action == "template":
        return template(command.name, variant, values)
    return step_help(command.name, variant, values, whole=command.action == "help-all")


def _run(command: Command) -> int:
    """Run a step and print its result; the exit status says whether slides failed."""
    began = dt.datetime.now(dt.UTC).isoformat(timespec="microseconds")
    step, config = _step_and_config(command)
    result = step.run(config)
    if isinstance(result, Printed):
        print_data(result.text)
        return printed_status(result, config.run.max_failed)
    if isinstance(result, str):
        print_data(f"{result}\n")
        return ended(command.name, DONE, message=result)
    before = result.manifest.created < began
    print_data(summary(result, shown_warnings=SHOWN_WARNINGS if before else 0))
    if before:
        print_data(f"  equal work was finished at {result.manifest.created}: nothing was computed\n")
    status, said, about = failed_slides(result, config.run.max_failed)
    print_data(said)
    return ended(command.name, status, **facts(result), **about, done_before=before)


def _step_and_config(command: Command) -> tuple[Any, Any]:
    """Return a step's module and its config; a submitted job has no relative path in it."""
    formatter = json_logs.JsonFormatter(command.name) if command.log_format == "json" else None
    importlib.import_module("raystp.cluster.progress").log_to_console(formatter)
    step: Any = importlib.import_module(f"{package_of(command.name)}.step")
    config = step.CONFIG.load(command.config, command.overrides)
    if importlib.import_module("raystp.cluster.session").is_submitted():
        config.check_absolute()
    return step, config


@contextlib.contextmanager
def _terminable() -> Iterator[None]:
    """Raise SystemExit for SIGTERM, as Ctrl-C raises KeyboardInterrupt. Ray's own handler does the same."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, lambda number, _: sys.exit(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _failed(step: str, error: BaseException) -> int:
    """Print the error: a RaystpError and an exception of the machine as a sentence, any other with its traceback."""
    name, message = type(error).__name__, str(error)
    if not isinstance(error, RaystpError):
        explained = explain(error)
        if explained is None:
            message = f"{describe_exception(error)}. {UNEXPECTED}"
            print_error(message, unexpected=error)
            return ended(step, FAILED, error=name, message=message)
        name, message = ClusterError.__name__, explained
    print_error(f"{name}: {message}")
    return ended(step, FAILED, error=name, message=message)
