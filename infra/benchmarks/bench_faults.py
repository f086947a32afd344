"""Run the fault battery row by row, and enter outcome, date, commit and seconds into `faults.md`.

`--rows P1 S3` runs some rows only; `--xml FOLDER` reads JUnit files of earlier runs in place of running the tests. A
row keeps its entry until it is run again. All rows take about an hour on two idle cores.
"""

import argparse
import datetime as dt
import re
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ET
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from faults.rows import ROWS, FaultRow

ROOT = Path(__file__).parents[2]
TABLE = Path(__file__).with_name("faults.md")
HEAD = "| row | fault | tests | outcome | date | commit | seconds |"


@dataclass
class Outcome:
    """The results of a row's tests."""

    counts: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0

    def add(self, file: Path, row: FaultRow) -> None:
        """Add the tests of a row that a JUnit file reports."""
        for case in ET.parse(file).getroot().iter("testcase"):
            name, path = str(case.get("name")), str(case.get("classname")).replace(".", "/") + ".py"
            parts = next((parts for test, parts in row.tests.items() if path.endswith(test)), None)
            if parts is not None and (not parts or any(part in name for part in parts)):
                faults = [kind for kind in ("failure", "error", "skipped") if case.find(kind) is not None]
                self.counts[{"skipped": "skipped"}.get(faults[0], "failed") if faults else "passed"] += 1
                self.seconds += float(case.get("time") or 0)


def run(row: FaultRow) -> Outcome:
    """Run a row's tests, a process of pytest for each file."""
    outcome = Outcome()
    for file, parts in row.tests.items():
        with tempfile.TemporaryDirectory() as folder:
            report = Path(folder) / "report.xml"
            chosen = ["-k", " or ".join(parts)] if parts else []
            command = [sys.executable, "-m", "pytest", "-q", file, *chosen, f"--junitxml={report}"]
            subprocess.run(command, cwd=ROOT, check=False)
            outcome.add(report, row)
    return outcome


def line(row: FaultRow, outcome: Outcome, commit: str) -> str:
    """Return a row of the table."""
    files = {file.removeprefix("tests/"): ", ".join(parts) for file, parts in row.tests.items()}
    tests = "; ".join(f"`{file}` ({parts})" if parts else f"`{file}`" for file, parts in files.items())
    counts = ", ".join(f"{count} {kind}" for kind, count in sorted(outcome.counts.items(), reverse=True))
    day = dt.datetime.now(dt.UTC).date()
    return f"| {row.number} | {row.fault} | {tests} | {counts} | {day} | {commit} | {outcome.seconds:.0f} |"


def checked_out() -> str:
    """Return the commit of this checkout."""
    command = ["git", "rev-parse", "--short", "HEAD"]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()


def enter(row: FaultRow, entry: str) -> None:
    """Replace or add a row's entry in the table."""
    text = TABLE.read_text(encoding="utf-8")
    start = f"| {row.number} | {row.fault} |"
    pattern = re.compile(rf"^{re.escape(start)}.*$", re.MULTILINE)
    if pattern.search(text):
        TABLE.write_text(pattern.sub(lambda _: entry, text), encoding="utf-8")
        return
    rows = text.index("\n\n", text.index(HEAD))
    TABLE.write_text(f"{text[:rows]}\n{entry}{text[rows:]}", encoding="utf-8")


def main() -> None:
    """Run the chosen rows, and enter each as soon as it is done."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", nargs="*", help="numbers of rows, say P1 S3")
    parser.add_argument("--xml", type=Path, help="folder with JUnit files of earlier runs")
    parser.add_argument("--commit", help="the commit of these runs; the default is the one that is checked out")
    given = parser.parse_args()
    for row in ROWS:
        if given.rows and row.number not in given.rows:
            continue
        outcome = Outcome()
        for file in sorted(given.xml.glob("*.xml")) if given.xml else ():
            outcome.add(file, row)
        outcome = outcome if given.xml else run(row)
        if outcome.counts:
            enter(row, line(row, outcome, given.commit or checked_out()))
            sys.stdout.write(f"{row.number} {row.fault}: {dict(outcome.counts)} in {outcome.seconds:.0f} s\n")


if __name__ == "__main__":
    main()
