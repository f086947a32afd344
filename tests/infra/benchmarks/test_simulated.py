"""The simulated cohort at a small size, its kills, and its S3 endpoint."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from bench_simulated import FAULTS
from simulated.cluster import Cluster
from simulated.endpoint import Service, Store
from simulated.run import Plan, run

from tests.conftest import ROOT

ENCODERS, KILLS, UNITS = 2, 1, 100
DRIVER = """
import json, sys, time
at, file = {units}, open(json.loads(sys.argv[1])["series"], "a")
print(json.dumps({{"before": 0, "units": at, "phase": "run"}}), file=file, flush=True)
time.sleep({seconds})
"""
"""A driver that finishes so many units at once, and then lives for so long."""
NO_RAY = Cluster("", os.getpid(), [])


@pytest.mark.faults
@pytest.mark.ray
def test_a_simulated_cohort_loses_and_doubles_no_record_when_its_driver_is_killed(tmp_path: Path) -> None:
    words = ["--slides", "200", "--kills", str(KILLS), "--encoders", str(ENCODERS), "--factor", "200"]
    command = [sys.executable, "infra/benchmarks/bench_simulated.py", *words, "--out", str(tmp_path / "figures.json")]
    subprocess.run([*command, "--folder", str(tmp_path)], cwd=ROOT, check=True)
    figures = json.loads((tmp_path / "figures.json").read_bytes())
    found = figures["verified"]
    assert found["rows_of_records"] == found["tiles"]
    assert {name: found[name] for name in FAULTS} == dict.fromkeys(FAULTS, 0)
    assert len(figures["killed_at"]) == KILLS
    assert figures["recomputed"] <= KILLS * ENCODERS


def plan_of(folder: Path, monkeypatch: pytest.MonkeyPatch, *, units: int, seconds: float) -> Plan:
    """Return a plan with one kill at half of the units, for a driver that finishes `units` of them."""
    (folder / "simulated").mkdir()
    (folder / "simulated" / "driver.py").write_text(DRIVER.format(units=units, seconds=seconds))
    monkeypatch.setenv("PYTHONPATH", str(folder))
    return Plan({}, folder, UNITS, UNITS, [UNITS // 2])


def test_a_driver_that_ends_before_its_kill_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = plan_of(tmp_path, monkeypatch, units=UNITS // 2 - 1, seconds=0)
    with pytest.raises(RuntimeError, match="finished all 100 units before its kill at 50: set --factor lower"):
        run(plan, NO_RAY)


def test_a_kill_is_counted_with_the_units_that_were_done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = plan_of(tmp_path, monkeypatch, units=UNITS // 2 + 3, seconds=3)
    series = run(plan, NO_RAY)
    assert series.killed_at == [UNITS // 2 + 3]
    assert len(series.seconds) == KILLS + 1


def test_the_endpoint_stores_a_key_once_and_keeps_it_when_an_upload_is_given_up(tmp_path: Path) -> None:
    contents = os.open(tmp_path / "contents", os.O_RDWR | os.O_CREAT)
    service = Service(Store(contents))
    absent = {"if-none-match": "*"}
    assert service.answer("PUT", "/bucket/store/a", absent, b"first").status == 200
    assert service.answer("PUT", "/bucket/store/a", absent, b"second").status == 412
    assert b"<UploadId>0</UploadId>" in service.answer("POST", "/bucket/store/a?uploads", {}, b"").body
    service.answer("PUT", "/bucket/store/a?partNumber=1&uploadId=0", {}, b"part")
    assert service.answer("DELETE", "/bucket/store/a?uploadId=0", {}, b"").status == 204
    assert service.answer("GET", "/bucket/store/a", {}, b"").body == b"first"
    os.close(contents)


def test_a_list_of_the_endpoint_has_every_key_once_over_its_pages(tmp_path: Path) -> None:
    contents = os.open(tmp_path / "contents", os.O_RDWR | os.O_CREAT)
    service = Service(Store(contents))
    for number in range(5):
        service.answer("PUT", f"/bucket/store/{number}", {}, b"")
    service.answer("DELETE", "/bucket/store/3", {}, b"")
    found, token = list[str](), ""
    while True:
        page = service.answer("GET", f"/bucket?list-type=2&prefix=store/&max-keys=3{token}", {}, b"").body.decode()
        found += [part.partition("<")[0] for part in page.split("<Key>")[1:]]
        if "<NextContinuationToken>" not in page:
            break
        token = f"&continuation-token={page.split('<NextContinuationToken>')[1].partition('<')[0]}"
    assert found == [f"store/{number}" for number in (0, 1, 2, 4)]
    os.close(contents)
