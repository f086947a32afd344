"""The simulated cohort at a small size: the driver is killed once, and no record is lost or doubled."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ENCODERS, KILLS = 2, 1


@pytest.mark.faults
@pytest.mark.ray
def test_a_simulated_cohort_loses_and_doubles_no_record_when_its_driver_is_killed(tmp_path: Path) -> None:
    words = ["--slides", "200", "--kills", str(KILLS), "--encoders", str(ENCODERS), "--factor", "200"]
    command = [sys.executable, "infra/benchmarks/bench_simulated.py", *words, "--out", str(tmp_path / "figures.json")]
    subprocess.run([*command, "--folder", str(tmp_path)], cwd=ROOT, check=True)
    figures = json.loads((tmp_path / "figures.json").read_bytes())
    found = figures["verified"]
    assert found["rows_of_records"] == found["tiles"]
    assert {name: found[name] for name in found if name.endswith(("_lost", "_doubled", "_wrong"))} == {
        **{f"{kind}_{fault}": 0 for kind in ("records", "files", "noted") for fault in ("lost", "doubled")},
        "read_wrong": 0,
    }
    assert figures["recomputed"] <= KILLS * ENCODERS
    assert found["markers_left"] == 0
