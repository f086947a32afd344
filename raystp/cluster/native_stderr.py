"""Keep what a library's native code writes off stderr, which no logger and no warning filter can do.

Lines that pass go through a process of their own, so that they are printed even if this process crashes.
"""

import contextlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass

FILTER = """
import os, sys
while block := os.read(0, 1 << 16):
    lines = block.splitlines(keepends=True)
    os.write(1, b"".join(line for line in lines if sys.argv[1].encode() not in line))
"""
"""It reads what is there, rather than whole lines: a progress bar has no end of line."""

STDERR = 2
WAIT_S = 5.0


@dataclass
class Recording:
    """What was written to stderr; complete after its context."""

    text: str = ""


@contextlib.contextmanager
def recorded() -> Iterator[Recording]:
    """Keep what this process, or native code in it, writes to stderr inside the context, and print none of it."""
    found = Recording()
    try:
        saved = os.dup(STDERR)
    except OSError:  # stderr is closed
        yield found
        return
    with tempfile.TemporaryFile() as file:
        os.dup2(file.fileno(), STDERR)
        try:
            yield found
        finally:
            sys.stderr.flush()
            os.dup2(saved, STDERR)
            os.close(saved)
            file.seek(0)
            found.text = file.read().decode(errors="replace")


@contextlib.contextmanager
def without_line(phrase: bytes) -> Iterator[None]:
    """Leave out the lines with `phrase` that this process, or a library in it, writes to stderr inside the context."""
    try:
        saved = os.dup(STDERR)
    except OSError:  # stderr is closed
        yield
        return
    try:
        command = [sys.executable, "-I", "-S", "-c", FILTER, phrase.decode()]
        # A session of its own: Ctrl-C ends this process first, and the filter at the end of its input.
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=saved, start_new_session=True)
        assert process.stdin is not None  # a pipe was requested
        os.dup2(process.stdin.fileno(), STDERR)
        process.stdin.close()
        try:
            yield
        finally:
            sys.stderr.flush()
            os.dup2(saved, STDERR)
            with contextlib.suppress(subprocess.TimeoutExpired):  # another process may still hold the pipe
                process.wait(WAIT_S)
    finally:
        os.close(saved)
