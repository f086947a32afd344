"""predict and publish through an S3 endpoint: model, slides, store and results are objects."""

import csv
import shutil
from pathlib import Path

import anndata as ad
import numpy as np
import pytest

from raystp import cli
from raystp.artifacts import resolve
from raystp.storage import StoragePath

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.faults]

SECRET = "secret-of-a-test"


@pytest.fixture
def remote(bucket: StoragePath) -> StoragePath:
    """The bucket's folder with its credentials in the URI, which Ray's workers need: they started earlier."""
    return StoragePath.of(bucket.uri.replace("s3://", f"s3://key:{SECRET}@", 1))


def _equal(found: ad.AnnData, expected: ad.AnnData) -> None:
    np.testing.assert_array_equal(found.X, expected.X)
    np.testing.assert_array_equal(found.obsm["spatial"], expected.obsm["spatial"])
    assert found.var_names.tolist() == expected.var_names.tolist()


def test_a_model_published_to_an_object_store_predicts_elsewhere_as_in_its_own_store(
    smoke_store: Path, remote: StoragePath, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model, slides = remote / "model", tmp_path / "slides"
    words = ["publish", "train/smoke-bleep", "--index", "index/smoke-bleep", "--run.store", str(smoke_store)]
    assert cli.main([*words, "-o", model.uri]) == 0
    assert (model / "card.json").exists()
    slides.mkdir()
    shutil.copy(resolve(str(smoke_store), "demo/smoke", "demo").path.local_path / "slides" / "unmeasured.svs", slides)
    (remote / "slides" / "unmeasured.svs").write_bytes((slides / "unmeasured.svs").read_bytes())
    own = resolve(str(smoke_store), "impute/smoke-bleep", "impute").path.local_path / "anndata" / "unmeasured.h5ad"
    expected = ad.read_h5ad(own)

    words = ["predict", "--model", model.uri, "impute.k=20"]
    out = tmp_path / "out"
    assert cli.main([*words, str(slides), "--run.store", str(tmp_path / "store"), "-o", str(out)]) == 0
    _equal(ad.read_h5ad(out / "unmeasured.h5ad"), expected)

    out_there, store = remote / "out", remote / "store"
    again = [*words, (remote / "slides").uri, "--run.store", store.uri, "-o", out_there.uri]
    assert cli.main(again) == 0
    assert out_there.names() == ["slides.csv", "summary.md", "unmeasured.h5ad"]
    with (out_there / "unmeasured.h5ad").local() as local:
        _equal(ad.read_h5ad(local), expected)
    (row,) = csv.DictReader((out_there / "slides.csv").read_bytes().decode().splitlines())
    assert (row["slide"], row["tiles"], row["problem"]) == ("unmeasured", str(expected.n_obs), "")
    written = [name for name in remote.files() if name.endswith((".json", ".md", ".csv", ".h5ad"))]
    assert not [name for name in written if SECRET.encode() in (remote / name).read_bytes()]
    assert SECRET not in capsys.readouterr().out

    before = {name: (remote / name).version() for name in remote.files()}
    assert cli.main(again) == 0
    assert {name: (remote / name).version() for name in remote.files()} == before
