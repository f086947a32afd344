"""The GPU benchmark on a CPU: every section ends, and one that lacks a package, or time, says so."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[3]
SCRIPT = "infra/benchmarks/bench_gpu.py"
WITHOUT = """
import sys

class Absent:
    def find_spec(self, name, path, target=None):
        if name.partition(".")[0] in {"faiss", "openslide", "ray", "pydantic"}:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Absent())
"""


def figures(tmp_path: Path, *words: str, python_path: str = "") -> list[dict[str, Any]]:
    out = tmp_path / "gpu.json"
    command = [sys.executable, SCRIPT, "--device", "cpu", "--quick", "--out", str(out), *words]
    path = {"PYTHONPATH": f"{python_path}:{ROOT}", "PATH": "/usr/bin", "OMP_NUM_THREADS": "1"}
    subprocess.run(command, cwd=ROOT, check=True, env=path, timeout=1500)
    found: list[dict[str, Any]] = json.loads(out.read_bytes())["figures"]
    return found


@pytest.mark.faults
def test_every_section_ends_on_a_cpu(tmp_path: Path) -> None:
    found = figures(tmp_path)
    assert {one["section"] for one in found} == {"copies", "memory", "slide", "training", "search", "jpeg"}
    assert {one["unit"] for one in found if one["value"] is None} == {
        "the CPU has none",
        "this FAISS sees no GPU: install faiss-gpu-cu12 beside a GPU",
        "it needs a CUDA device",
    }
    ahead = [one["value"] for one in found if "largest difference of rows" in one["what"]]
    assert ahead == [0.0] * 6


@pytest.mark.faults
def test_a_section_that_lacks_a_package_names_it_and_the_others_go_on(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(WITHOUT)
    found = figures(tmp_path, "--sections", "slide", "search", "jpeg", python_path=str(tmp_path))
    reasons = {one["section"]: one["unit"] for one in found if one["value"] is None and one["section"] != "jpeg"}
    assert reasons["slide"].startswith("openslide is absent")
    assert "install faiss-cpu" in reasons["search"]
    assert {one["section"] for one in found if one["value"] is not None} == {"search", "jpeg"}
