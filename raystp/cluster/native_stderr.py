"""Keep a known line of a library's native code off stderr, which no logger and no warning filter can do.

The lines go through a process of their own, so that they are printed even if this process crashes.
"""

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator

FILTER = """
import os, sys
while block := os.read(0, 1 << 16):
    lines = block.splitlines(keepends=True)
    os.write(1, b"".join(line for line in lines if sys.argv[1].encode() not in line))
"""
"""It reads what is there, rather than whole lines: a progress bar has no end of line."""

STDERR = 2
WAIT_S = 5.0


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
