"""A method is one folder and one record: no other code names one, and a new one needs nothing else."""

import ast
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
import yaml

from raystp.models.methods import METHODS
from tests.conftest import ROOT

OWN = {path.parent.name for path in (ROOT / "raystp" / "models").glob("*/method.py")}
"""Folders of `raystp/models` that hold methods."""

MAP_LAYERS = "raystp/tables.py"
"""Holds the stored names of map layers, one of which is `attention`."""

PUBLISHED = "raystp/evaluate/published/"
"""Config values of published protocols, which are of one method each."""


def _strings(path: Path) -> Iterator[tuple[int, str]]:
    """Yield line and value of each string of a module that is not a docstring."""
    tree = ast.parse(path.read_text())
    prose = {
        id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in prose:
            yield node.lineno, node.value


def test_no_code_outside_its_folder_names_a_method() -> None:
    named = []
    for path in sorted((ROOT / "raystp").rglob("*.py")):
        name = path.relative_to(ROOT).as_posix()
        if (
            name == MAP_LAYERS
            or name.startswith(PUBLISHED)
            or (name.startswith("raystp/models/") and path.parent.name in OWN)
        ):
            continue
        named += [f"{name}:{line}: {text!r}" for line, text in _strings(path) if text in METHODS]
    assert named == []


TOY = {
    "__init__.py": '"""Toy."""\n',
    "method.py": '''"""The record of a toy method."""

from dataclasses import dataclass

from raystp.models.method import Method
from raystp.models.training.options import FitOptions


@dataclass(frozen=True)
class ToyOptions:
    """Options of the toy method."""

    dim: int = 8


TOY = Method(
    name="toy",
    title="toy",
    options=ToyOptions,
    module="raystp.models.toy.learner",
    published_fit=lambda _: FitOptions(epochs=2, batch_size=8, accumulate_batches=1),
    needs_index=True,
)
''',
    "learner.py": '''"""A toy method: two linear maps into one space; it predicts through a reference index."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from raystp.models.training.setup import TrainSetup


class Toy(nn.Module):
    def __init__(self, d_image, genes, dim):
        super().__init__()
        self.image, self.spot = nn.Linear(d_image, dim), nn.Linear(genes, dim)

    def forward(self, images, expression):
        return self.image(images), self.spot(expression)

    def loss(self, images, spots):
        return (images - spots).square().mean()


def setup(options, inputs):
    torch.manual_seed(inputs.seed)
    model = Toy(inputs.d_image, inputs.train.expression.shape[1], options.dim).to(inputs.device)
    held = inputs.pairs(inputs.validation) if inputs.validation is not None else None
    return TrainSetup(model, inputs.pairs(inputs.train), held)


@dataclass(frozen=True)
class ToyPredictor:
    kind: str
    genes: list[str]
    d_image: int
    model: Toy

    def embed_images(self, features):
        with torch.inference_mode():
            return self.model.image(torch.from_numpy(np.ascontiguousarray(features, np.float32))).numpy()

    def embed_spots(self, expression):
        with torch.inference_mode():
            return self.model.spot(torch.from_numpy(np.ascontiguousarray(expression, np.float32))).numpy()


def open_predictor(arrays, meta):
    model = Toy(meta["d_image"], len(meta["genes"]), meta["options"]["dim"])
    model.load_state_dict({name: torch.from_numpy(value) for name, value in arrays.items()})
    return ToyPredictor("toy", list(meta["genes"]), meta["d_image"], model)
''',
}
"""The whole of a new method: its folder."""


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the package with one more method: one folder, and its name in one line of `methods.py`."""
    folder = tmp_path_factory.mktemp("package")
    shutil.copytree(ROOT / "raystp", folder / "raystp", ignore=shutil.ignore_patterns("__pycache__"))
    toy = folder / "raystp" / "models" / "toy"
    toy.mkdir()
    for name, text in TOY.items():
        (toy / name).write_text(text)
    registry = folder / "raystp" / "models" / "methods.py"
    text = registry.read_text()
    assert text.count("RIDGE, KNN, GENE_MEAN)") == 1
    text = text.replace("RIDGE, KNN, GENE_MEAN)", "RIDGE, KNN, GENE_MEAN, TOY)")
    registry.write_text(text.replace("\nMETHODS", "\nfrom raystp.models.toy.method import TOY\n\nMETHODS", 1))
    return folder


RUN = """
import sys
from raystp.cli import main
from raystp.cluster.session import session

with session():
    status = [main([step, "--config", f"{sys.argv[1]}/{step}.yaml"]) for step in sys.argv[2:]]
sys.exit(max(status))
"""


def _run(package: Path, folder: Path, **steps: Mapping[str, object]) -> list[dict[str, object]]:
    """Run steps of the copied package in one process with one Ray; return the summary of each."""
    for step, values in steps.items():
        (folder / f"{step}.yaml").write_text(yaml.safe_dump(dict(values)))
    done = subprocess.run(
        [sys.executable, "-c", RUN, str(folder), *steps],
        cwd=package,
        env={**os.environ, "PYTHONPATH": str(package)},
        capture_output=True,
        text=True,
        timeout=550,
        check=False,
    )
    assert done.returncode in (0, 3), done.stderr
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith('{"step"')]


@pytest.mark.faults
@pytest.mark.ray
@pytest.mark.slow
def test_a_new_method_goes_through_every_step_by_its_folder_and_one_line(
    package: Path, smoke_store: Path, tmp_path: Path
) -> None:
    run = {"store": str(smoke_store), "tracking": "none"}
    split = {"test": ["patient-C"], "validation": ["patient-B"]}
    train = {"model": "toy", "toy": {"dim": 4}, "split": split, "panel": {"variable": 20}}
    path = {
        "name": "smoke",  # the demo's own spots, tiles and embeddings are used again
        "slides": "demo/smoke",
        "train": {"name": "toy", **train},
        "impute": {"k": 5},
        "evaluate": {"name": "toy", "permutations": 1},
        "run": run,
    }
    sweep = {
        "name": "toy",
        "train": {**train, "spots": "spots/smoke", "embeddings": "embed/smoke", "run": run},
        "space": {"toy.dim": ["choice", 4, 8]},
        "trials": 1,
        "asha": None,
        "run": run,
    }
    scored, tuned = _run(package, tmp_path, pipeline=path, tune=sweep)
    assert scored["status"] in ("done", "incomplete")
    assert tuned["rows"] == {"trials": 1, "finished": 1, "stopped": 0, "failed": 0}
    steps = {"train", "index", "impute", "evaluate"}
    assert {step for step in steps if list((smoke_store / step).glob("toy*/manifest.json"))} == steps
    assert "toy" in next((smoke_store / "evaluate").glob("toy*/report.html")).read_text()
