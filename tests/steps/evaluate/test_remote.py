"""evaluate with all artifacts in an object store that has an endpoint of its own."""

import shutil
from pathlib import Path

import pytest

from raystp.artifacts import resolve
from raystp.steps.evaluate import step as evaluate
from raystp.storage import StoragePath

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.faults]

READ = {"spots": "smoke", "tile": "smoke", "embed": "smoke", "train": "smoke-ridge", "impute": "smoke-ridge"}


def test_predictions_in_an_object_store_have_the_same_report_as_in_a_folder(
    smoke_store: Path, bucket: StoragePath, tmp_path: Path
) -> None:
    for step, name in READ.items():
        folder = resolve(str(smoke_store), f"{step}/{name}", step).path.local_path
        copy = shutil.copytree(folder, tmp_path / step / folder.name)
        for file in copy.rglob("*"):
            if file.is_file():
                (bucket / file.relative_to(tmp_path).as_posix()).write_bytes(file.read_bytes())
    settings = ["spots=spots/smoke", 'predictions=["impute/smoke-ridge"]', "permutations=0", "run.tracking=none"]
    here, there = (
        evaluate.run(evaluate.CONFIG.load(None, [*settings, f"run.store={store}"]))
        for store in (str(tmp_path), bucket.uri)
    )
    for table in ("scores.parquet", "genes.parquet"):
        assert (there.path / table).read_table().equals((here.path / table).read_table())
    assert "data:image" in (there.path / "report.html").read_bytes().decode()  # the slide under the maps
