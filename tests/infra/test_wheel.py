"""The wheel: built from the clone, installed into a clean environment, and used there without the clone."""

import functools
import os
import site
import subprocess
import sys
import tomllib
import venv
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from raystp.artifacts import resolve
from raystp.steps.publish import step as publish
from tests.conftest import ROOT

pytestmark = pytest.mark.faults

USE_THE_API = """
import raystp as rs
with rs.open_slide("slide.png", mpp=0.5) as slide:
    boxes = rs.tile_grid(slide, tile_um=16)
    tiles = rs.read_tiles(slide, boxes[:2], tile_px=224)
print(rs.__version__, rs.__file__, len(boxes), rs.encode(rs.load_encoder("tiny"), tiles).shape)
print(rs.open_artifact("tile/default").table()["slide"].tolist())
"""


LOAD_MODEL = """
import sys
import anndata, mlflow, numpy, pandas, raystp
mlflow.set_tracking_uri(sys.argv[1])
found = mlflow.pyfunc.load_model(sys.argv[2]).predict(pandas.read_parquet(sys.argv[3]))
expected = anndata.read_h5ad(sys.argv[4])
assert found.columns.tolist() == expected.var_names.tolist()
assert len(found) == expected.n_obs > 9
print(raystp.__file__, float(numpy.abs(found.to_numpy() - expected.X).max()))
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), str(ROOT)]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (built,) = folder.glob("raystp-*.whl")
    return built


@pytest.fixture(scope="module")
def environment(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment with the wheel, and with the other packages of this one by a path file."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, with_pip=False, symlinks=True)
    python = folder / "bin" / "python"
    (packages,) = folder.glob("lib/python*/site-packages")
    (packages / "others.pth").write_text("\n".join(site.getsitepackages()))  # its own path files are not read
    install = [sys.executable, "-m", "pip", "--python", str(python), "install", "--no-deps", "--no-index", str(wheel)]
    done = subprocess.run(install, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return folder / "bin"


def test_the_wheel_has_the_package_and_its_licence_and_nothing_else(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    ours = {str(path.relative_to(ROOT)) for path in (ROOT / "raystp").rglob("*.py")}
    assert ours <= set(names)
    rest = [name for name in names if not name.startswith("raystp/") and ".dist-info/" not in name]
    assert rest == []
    assert any(name.endswith("licenses/LICENSE") for name in names)


def test_the_command_line_and_the_api_work_without_the_clone(environment: Path, tmp_path: Path) -> None:
    pixels = np.full((400, 400, 3), 240, np.uint8)
    pixels[60:340, 60:340] = (150, 80, 160)
    Image.fromarray(pixels).save(tmp_path / "slide.png")
    (tmp_path / "slides.csv").write_text("slide,path,patient,mpp\nS1,slide.png,P1,0.5\n")
    call = functools.partial(_call, environment, tmp_path)
    built = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert call("raystp", "--version").startswith(f"raystp {built}\npython ")
    assert "tile" in call("raystp", "--help")
    assert "1 slides" in call("raystp", "tile", "--set", "slides=slides.csv", "--set", "tile_um=16")
    first, second = call("python", "-c", USE_THE_API).splitlines()
    version, file, tiles, *shape = first.split(" ", 3)
    assert file.startswith(str(environment.parent))
    assert (version, int(tiles) > 1, shape) == (built, True, ["(2, 128)"])
    assert second == "['S1']"


@pytest.mark.ray
def test_a_registered_model_predicts_there_what_raystp_predict_predicts(
    environment: Path, smoke_store: Path, tmp_path: Path
) -> None:
    published, registry, store = tmp_path / "published", f"sqlite:///{tmp_path / 'mlflow.db'}", tmp_path / "store"
    sources = {
        "model": "train/smoke-bleep",
        "index": "index/smoke-bleep",
        "out": str(published),
        "register_as": "smoke",
    }
    sentence = publish.run(publish.CONFIG.of({**sources, "run": {"store": str(smoke_store), "tracking": registry}}))
    assert sentence.endswith("load_model('models:/smoke/1')")
    cohort = resolve(str(smoke_store), "demo/smoke", "demo").path.local_path
    slide = cohort / "slides" / "unmeasured.svs"
    places = ["--out", "predicted", "--run.store", str(store)]
    _call(environment, tmp_path, "raystp", "predict", str(slide), "--model", str(published), *places)
    (tiles,) = store.glob("embed/*/embeddings/unmeasured")
    files = [str(tiles), str(tmp_path / "predicted" / "unmeasured.h5ad")]
    told = _call(environment, tmp_path, "python", "-c", LOAD_MODEL, registry, "models:/smoke/1", *files)
    file, difference = told.splitlines()[-1].rsplit(" ", 1)
    assert file.startswith(str(environment.parent))
    assert float(difference) <= 1e-6


def _call(environment: Path, folder: Path, *words: str) -> str:
    """Run a program of the environment, without the clone; return what it prints."""
    program, *arguments = words
    variables = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    command = [str(environment / program), *arguments]
    done = subprocess.run(command, cwd=folder, env=variables, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout
