"""Foreign folders through all steps: the same pixels and counts give the same scores as raystp's own slide table."""

import json
from pathlib import Path
from typing import Any

import pytest

from raystp.steps.embed import step as embed
from raystp.steps.evaluate import step as evaluate
from raystp.steps.impute import step as impute
from raystp.steps.index import step as index
from raystp.steps.spots import step as spots
from raystp.steps.tile import step as tile
from raystp.steps.train import step as train
from raystp.tables import SCORES
from tests.interop.sections.paired import GENES, MPP, PATCH, bench_root, cohort, hest_root, own_table, written

pytestmark = [pytest.mark.ray, pytest.mark.faults, pytest.mark.slow, pytest.mark.usefixtures("ray_session")]

MODELS = ("ridge", "bleep")
TEST = "C1"


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str], float]:
    folder = tmp_path_factory.mktemp("own")
    return _scores(own_table(folder / "cohort", cohort()), folder)


def _scores(table: Path, folder: Path, fold: Path | None = None) -> dict[tuple[str, str], float]:
    """Run all steps from a slide table to scores; with the file of a fold, it says who is held out."""
    run = {"store": str(folder / "store")}
    spots.run(spots.CONFIG.of({"slides": str(table), "run": run}))
    tile.run(tile.CONFIG.of({"slides": str(table), "spots": "spots/default", "tile_um": PATCH * MPP, "run": run}))
    embed.run(embed.CONFIG.of({"tiles": "tile/default", "encoder": {"name": "tiny"}, "run": run}))
    sources: dict[str, Any] = {"spots": "spots/default", "embeddings": "embed/default", "run": run}
    panel = folder / "genes.json"
    panel.write_text(json.dumps({"genes": [f"G{gene}" for gene in range(GENES)]}))
    chosen = [f"panel.file={panel}", "panel.name=all", "split.test=[C1]"] if fold is None else []
    for model in MODELS:
        given = [*chosen, "spots=spots/default", "embeddings=embed/default", f"run.store={run['store']}"]
        fit = ["fit.epochs=3", "fit.batch_size=16"] if model == "bleep" else []
        train.run(train.CONFIG.load(fold, [*given, *fit, f"name={model}", f"model={model}"]))
        reference = {}
        if model == "bleep":
            index.run(index.CONFIG.of({**sources, "name": model, "model": f"train/{model}"}))
            reference = {"index": f"index/{model}"}
        wanted: dict[str, Any] = {"name": model, "model": f"train/{model}", "slides": [TEST], **reference}
        impute.run(impute.CONFIG.of({**sources, **wanted}))
    predictions = [f"impute/{model}" for model in MODELS]
    scored = {"spots": "spots/default", "predictions": predictions, "permutations": 0, "draws": 100, "run": run}
    found = evaluate.run(evaluate.CONFIG.of(scored)).table("scores.parquet", SCORES).to_pylist()
    return {
        (row["model"], row["genes"]): row["value"] for row in found if (row["section"], row["metric"]) == (TEST, "PCC")
    }


def test_hests_folder_gives_the_scores_of_raystps_own_table(own: dict[tuple[str, str], float], tmp_path: Path) -> None:
    table = written("hest", hest_root(tmp_path / "hest", cohort()), tmp_path / "imported")
    assert _scores(table, tmp_path) == pytest.approx(own, abs=1e-5)
    assert own["ridge", "all"] > 0.5


def test_the_images_of_hest_bench_and_its_fold_give_the_same_scores(
    own: dict[tuple[str, str], float], tmp_path: Path
) -> None:
    table = written("hest-bench", bench_root(tmp_path / "bench", cohort(), TEST), tmp_path / "imported")
    fold = tmp_path / "imported" / "splits" / "fold0.yaml"
    assert _scores(table, tmp_path, fold)["ridge", "all"] == pytest.approx(own["ridge", "all"], abs=1e-4)
