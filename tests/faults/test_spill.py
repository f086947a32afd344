"""A small object store with a full spill disk: an error that says so; readers inside the encoders need no disk."""

import contextlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ray
import tifffile

from raystp.artifacts import resolve
from raystp.expression.sections import embeddings_of
from tests.conftest import ROOT
from tests.faults import cohort

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.faults]

FULL = "Local disk is full"
STORE_BYTES = 80 << 20
"""Object store of the cluster, about the least that Ray accepts."""
SIDE, TILE_PX = 9 * 1024, 224
"""A slide of 1,681 tiles, whose 250 MB of pixels cross the store."""
ON_A_FULL_DISK = (
    'mount -t tmpfs -o size=64k none "$1" && dd if=/dev/zero of="$1"/full bs=1k 2>/dev/null; "$2" -m "$3" "$4"'
)


def test_a_full_spill_disk_ends_separate_readers_and_readers_inside_the_encoders_need_no_disk(tmp_path: Path) -> None:
    if not shutil.which("unshare"):
        pytest.skip("mounting a small disk needs unshare (util-linux)")
    slide, spill = tmp_path / "large.tiff", tmp_path / "spill"
    spill.mkdir()
    pixels = (
        np.random.default_rng(0).integers(0, 255, (SIDE // 64, SIDE // 64, 3), np.uint8).repeat(64, 0).repeat(64, 1)
    )
    tifffile.imwrite(
        slide,
        pixels,
        tile=(256, 256),
        photometric="rgb",
        compression="jpeg",
        resolution=(20_000.0, 20_000.0),
        resolutionunit="centimeter",
        metadata=None,
    )
    table = cohort.table(tmp_path / "slides.csv", {"large": str(slide)})
    tile = {"slides": table, "tile_um": 112, "tile_px": TILE_PX, "min_tissue": 0.0, "focus_tiles": 0}
    plan: dict[str, Any] = {
        "tile": tile,
        "stores": {"inside": 0, "separate": 1},
        "folder": str(tmp_path),
        "spill": str(spill),
    }
    (tmp_path / "plan.json").write_text(json.dumps(plan))
    shell = ["unshare", "--map-root-user", "--mount", "sh", "-c", ON_A_FULL_DISK, "sh", str(spill)]
    ran = subprocess.run(
        [*shell, sys.executable, "tests.faults.test_spill", str(tmp_path / "plan.json")],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        timeout=400,
    )
    if "unshare:" in ran.stderr or "mount:" in ran.stderr:
        pytest.skip(f"this machine does not allow mounting a disk: {ran.stderr.strip()}")
    assert ran.returncode == 0, ran.stdout[-3000:] + ran.stderr[-3000:]
    inside = resolve(str(tmp_path / "inside"), "embed/default", "embed")
    assert embeddings_of(inside, "large").num_rows == inside.manifest.rows["tiles"] >= (SIDE // TILE_PX) ** 2
    assert not list((tmp_path / "separate").glob("embed/*/manifest.json"))


def _main(file: Path) -> None:
    """Tile and embed as the plan says, on a Ray with a small object store whose spill disk is full."""
    from raystp.steps.embed import step as embed  # noqa: PLC0415 -- pytest's process needs neither
    from raystp.steps.tile import step as tile  # noqa: PLC0415 -- the same

    plan = json.loads(file.read_text())
    ray.init(
        address="local",
        num_cpus=4,
        object_store_memory=STORE_BYTES,
        object_spilling_directory=plan["spill"],
        include_dashboard=False,
        log_to_driver=False,
    )
    tiles = tile.run(tile.CONFIG.of({**plan["tile"], "run": {"store": plan["folder"]}}))
    for name, readers in plan["stores"].items():
        run = {"store": f"{plan['folder']}/{name}", "readers": readers, "encoders": 1}
        values = {"tiles": tiles.path.uri, "run": run}
        expected = pytest.raises(Exception, match=FULL) if readers else contextlib.nullcontext()  # Ray's, wrapped
        with expected:
            embed.run(embed.CONFIG.of(values))


if __name__ == "__main__":
    _main(Path(sys.argv[1]))
