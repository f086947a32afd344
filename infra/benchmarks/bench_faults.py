"""Run the fault battery row by row, and enter outcome, date, commit and seconds into `faults.md`.

`--rows P1 S3` runs some rows only; `--xml FOLDER` reads JUnit files of earlier runs in place of running the tests. A
row keeps its entry until it is run again. All rows take about an hour on two idle cores.
"""

import argparse
import datetime as dt
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
RULE = "|---|---|---|---|---|---|---|"
HEAD = "| row | fault | tests | outcome | date | commit | seconds |"


@dataclass
class Outcome:
    """The results of a row's tests."""

    counts: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0
    seen: set[tuple[str, str]] = field(default_factory=set)
    """Files with the parts of names of which a test was run."""

    def add(self, file: Path, row: FaultRow) -> None:
        """Add the tests of a row that a JUnit file reports."""
        for case in ET.parse(file).getroot().iter("testcase"):
            name, path = str(case.get("name")), str(case.get("classname")).replace(".", "/") + ".py"
            test = next((test for test in row.tests if path.endswith(test)), "")
            parts = [part for part in row.tests.get(test) or ("",) if part in name]
            if not test or not parts:
                continue
            self.seen |= {(test, part) for part in parts}
            faults = [kind for kind in ("failure", "error", "skipped") if case.find(kind) is not None]
            self.counts[{"skipped": "skipped"}.get(faults[0], "failed") if faults else "passed"] += 1
            self.seconds += float(case.get("time") or 0)

    def not_run(self, row: FaultRow) -> list[str]:
        """Return the tests of the row of which none was run."""
        wanted = [(file, part) for file, parts in row.tests.items() for part in parts or ("",)]
        return [part or f"`{file.removeprefix('tests/')}`" for file, part in wanted if (file, part) not in self.seen]


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
    counts = ", ".join(f"{count} {kind}" for kind, count in sorted(outcome.counts.items(), reverse=True))
    if left := outcome.not_run(row):
        counts += f"; not run: {', '.join(left)}"
    day = dt.datetime.now(dt.UTC).date()
    return f"{start_of(row)} {tests_of(row)} | {counts} | {day} | {commit} | {outcome.seconds:.0f} |"


def tests_of(row: FaultRow) -> str:
    """Return the files of a row's tests, with parts of their names."""
    files = {file.removeprefix("tests/"): ", ".join(parts) for file, parts in row.tests.items()}
    return "; ".join(f"`{file}` ({parts})" if parts else f"`{file}`" for file, parts in files.items())


def checked_out() -> str:
    """Return the commit of this checkout."""
    command = ["git", "rev-parse", "--short", "HEAD"]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()


def start_of(row: FaultRow) -> str:
    """Return the cells by which a row's entry is found."""
    return f"| {row.number} | {row.fault} |"


def enter(entry: str) -> None:
    """Replace a row's entry in the table; rows that were never run say so."""
    before, _, rest = TABLE.read_text(encoding="utf-8").partition(HEAD)
    lines, _, after = rest.partition("\n\n")
    known = [*lines.splitlines(), entry]
    table = [RULE]
    for one in ROWS:
        found = [line for line in known if line.startswith(start_of(one))]
        table.append(found[-1] if found else f"{start_of(one)} {tests_of(one)} | not run yet | | | |")
    TABLE.write_text(before + HEAD + "\n" + "\n".join(table) + "\n\n" + after, encoding="utf-8")


def main() -> int:
    """Run the chosen rows, and enter each as soon as it is done; return 1 if a test failed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", nargs="*", help="numbers of rows, say P1 S3")
    parser.add_argument("--xml", type=Path, help="folder with JUnit files of earlier runs")
    parser.add_argument("--commit", help="the commit of these runs; the default is the one that is checked out")
    given, failed = parser.parse_args(), 0
    for row in ROWS:
        if given.rows and row.number not in given.rows:
            continue
        outcome = Outcome()
        for file in sorted(given.xml.glob("*.xml")) if given.xml else ():
            outcome.add(file, row)
        outcome = outcome if given.xml else run(row)
        failed += outcome.counts["failed"]
        if outcome.counts:
            enter(line(row, outcome, given.commit or checked_out()))
            sys.stdout.write(f"{row.number} {row.fault}: {dict(outcome.counts)} in {outcome.seconds:.0f} s\n")
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
