"""A known line of native code is kept off stderr; everything else is printed, even before a crash."""

import subprocess
import sys

SCRIPT = """
import os, sys
from raystp.cluster.native_stderr import without_line
with without_line(b"known"):
    os.write(2, b"before\\n")
    os.write(2, b"a known line\\nbar 50%\\r")
    print("python", file=sys.stderr)
    if sys.argv[1:]:
        os.write(2, b"a crash")
        os.kill(os.getpid(), 9)
os.write(2, b"a known line again\\n")
"""


def _stderr(*arguments: str) -> str:
    command = [sys.executable, "-c", SCRIPT, *arguments]
    return subprocess.run(command, capture_output=True, check=False).stderr.decode()


def test_only_lines_with_the_phrase_are_left_out_and_only_inside() -> None:
    assert _stderr() == "before\nbar 50%\rpython\na known line again\n"


def test_what_was_written_before_a_crash_is_printed() -> None:
    assert _stderr("crash") == "before\nbar 50%\rpython\na crash"
