"""pipeline: every step's config is checked before the first begins, and what is done is left alone."""

from pathlib import Path
from typing import Any

import pytest

from raystp.artifacts import ArtifactWriter, resolve
from raystp.errors import ConfigError
from raystp.steps.pipeline import step as pipeline
from raystp.steps.pipeline.chain import planned_steps
from raystp.steps.pipeline.config import PipelineConfig
from raystp.storage import StoragePath

TRAIN: dict[str, Any] = {"split": {"test": ["patient-C"]}, "panel": {"variable": 30}}


def _config(**changes: Any) -> PipelineConfig:
    return pipeline.CONFIG.of({"name": "path", "slides": "demo/smoke", "train": TRAIN, **changes})


def test_the_faults_of_all_steps_are_told_before_any_work(tmp_path: Path) -> None:
    run = {"store": str(tmp_path / "store")}
    config = _config(tile={"tile_ums": 3}, embed={"unit_tiles": 0}, train=[{}, {**TRAIN, "model": "ridg"}], run=run)
    with pytest.raises(ConfigError) as caught:
        pipeline.run(config)
    assert [line for line in str(caught.value).splitlines() if not line.startswith("  ")] == [
        "pipeline: tile is not a valid config of `raystp tile`:",
        "pipeline: embed is not a valid config of `raystp embed`:",
        "pipeline: train path-bleep is not a valid config of `raystp train`:",
        "pipeline: train path-ridg is not a valid config of `raystp train`:",
    ]
    assert "  tile_ums: there is no such field; did you mean 'tile_um'?" in str(caught.value)
    assert not (tmp_path / "store").exists()


def test_the_warnings_of_all_steps_are_listed_once_by_slide(tmp_path: Path) -> None:
    steps = [{"A": ["pale"], "B": ["cut"]}, {"A": ["pale", "far"]}, None]
    found = [
        ArtifactWriter(StoragePath.of(tmp_path) / str(n), "tile", "a", str(n), {}, {}).finish(
            {}, [], {} if warnings is None else {"warnings": warnings}
        )
        for n, warnings in enumerate(steps)
    ]
    assert pipeline.warnings_of_all(found) == {"A": ["pale", "far"], "B": ["cut"]}


def test_one_model_has_the_pipelines_name_and_several_have_their_own() -> None:
    assert [one["name"] for one in _config().models()] == ["path"]
    several = _config(train=[TRAIN, {**TRAIN, "model": "ridge"}, {**TRAIN, "model": "knn", "name": "near"}])
    assert [one["name"] for one in several.models()] == ["path-bleep", "path-ridge", "near"]


def test_a_relative_path_in_any_step_is_refused_in_a_submitted_job() -> None:
    _config(run={"store": "/data/store"}).check_absolute()
    with pytest.raises(ConfigError, match=r"encoder\.weights: 'w\.safetensors' is relative"):
        _config(run={"store": "/data/store"}, embed={"encoder": {"weights": "w.safetensors"}}).check_absolute()


def test_what_is_shared_is_in_every_training_under_what_it_says_of_itself() -> None:
    shared = {"fit": {"seed": 2, "epochs": 9}, "panel": {"variable": 7}}
    models = _config(train=[{"model": "ridge"}, {"model": "bleep", "fit": {"epochs": 3}}], shared=shared).models()
    assert [one["fit"] for one in models] == [{"seed": 2, "epochs": 9}, {"seed": 2, "epochs": 3}]
    assert [one["panel"] for one in models] == [{"variable": 7}] * 2


def _planned(config: PipelineConfig) -> dict[str, Any]:
    """Return the configs of all steps by step and name, without running any."""
    found = {}
    for one in planned_steps(config):
        step = type(one).__name__.removesuffix("Config").removeprefix("Spots").lower()
        found[f"{step or 'spots'} {one.name}"] = one
    return found


def test_a_training_reads_all_embeddings_in_order_or_those_that_it_names() -> None:
    train = [{**TRAIN, "model": "ridge"}, {**TRAIN, "model": "knn", "embeddings": ["embed/near"], "neighbour_mean": 8}]
    config = _config(embed=[{"name": "near"}, {"layers": ["middle"]}], train=train, tile={"tile_um": [77, 154]})
    planned = _planned(config)
    assert planned["embed path-2"].layers == ("middle",) or planned["embed path-2"].layers == ["middle"]
    for step in ("train", "impute"):
        assert list(planned[f"{step} path-ridge"].embeddings) == ["embed/near", "embed/path-2"]
        assert list(planned[f"{step} path-knn"].embeddings) == ["embed/near"]
    assert planned["train path-knn"].neighbour_mean == 8


def test_each_of_several_tilings_is_embedded_by_name() -> None:
    tile = [{"name": "small", "tile_um": 77}, {"name": "large", "tile_um": 308}]
    with pytest.raises(ConfigError, match="embed: there are several tilings: set `tiles` to one of 'tile/small', "):
        _planned(_config(tile=tile))
    embed = [{"name": "near", "tiles": "tile/small"}, {"name": "far", "tiles": "tile/large"}]
    planned = _planned(_config(tile=tile, embed=embed))
    assert (planned["embed near"].tiles, planned["embed far"].tiles) == ("tile/small", "tile/large")
    with pytest.raises(ConfigError, match="embed: two entries have the name near"):
        _planned(_config(embed=[{"name": "near"}, {"name": "near"}]))


def test_completed_labels_are_those_of_all_trainings_but_ensembles_and_those_that_refuse_them() -> None:
    split = {"train": ["patient-A"], "validation": ["patient-B"], "test": ["patient-C"]}
    train = [
        {"model": "ensemble", "ensemble": {"members": ["train/path-knn", "train/measured"]}},
        {"model": "ridge"},
        {"model": "knn"},
        {"model": "ridge", "name": "measured", "completed": None},
    ]
    config = _config(train=train, shared={"split": split, "panel": {"variable": 30}}, complete={"method": "linear"})
    planned = _planned(config)
    assert (planned["complete path"].split.train, planned["complete path"].split.validation) == (
        ["patient-A"],
        ["patient-B"],
    )
    assert {name: one.completed for name, one in planned.items() if name.startswith("train ")} == {
        "train path-ridge": "complete/path",
        "train path-knn": "complete/path",
        "train measured": None,
    }
    ensemble = next(one for one in planned_steps(config) if getattr(one, "model", "") == "ensemble")
    assert ensemble.completed is None
    assert ensemble.split.test == ["patient-C"]


def test_the_models_of_an_ensemble_are_trained_before_it_and_scored_in_the_order_of_the_list() -> None:
    train = [{"model": "ensemble", "ensemble": {"members": ["train/path-ridge"]}}, {**TRAIN, "model": "ridge"}]
    config = _config(train=train)
    names = [one.name for one in planned_steps(config) if type(one).__name__.endswith("TrainConfig")]
    assert names == ["path-ridge", "path-ensemble"]
    assert planned_steps(config)[-1].predictions == ["impute/path-ensemble", "impute/path-ridge"]


def test_references_to_artifacts_that_nothing_makes_are_told_before_any_work(tmp_path: Path) -> None:
    train = [
        {**TRAIN, "model": "ridge", "embeddings": ["embed/path", "embed/gone"]},
        {"model": "ensemble", "ensemble": {"members": ["train/path-ridge", "train/lost"]}},
    ]
    run = {"store": str(tmp_path / "store")}
    with pytest.raises(ConfigError) as caught:
        pipeline.run(_config(train=train, run=run))
    first, second = str(caught.value).splitlines()
    assert first.startswith("pipeline: train path-ridge: no artifact 'embed/gone' in ")
    assert second.startswith("pipeline: train path-ensemble: no artifact 'train/lost' in ")
    assert second.endswith("no earlier step of the pipeline makes it")
    assert not (tmp_path / "store").exists()


def test_a_dry_run_waits_for_the_members_of_an_ensemble_and_for_an_encoder_to_be_trained(tmp_path: Path) -> None:
    patients = {"S1": "P1", "S2": "P2", "S3": "P3"}
    table = tmp_path / "slides.csv"
    rows = [f"{slide},{slide}.svs,{patient},scverse,{slide}.h5ad\n" for slide, patient in patients.items()]
    table.write_text("".join(["slide,path,patient,layout,counts\n", *rows]))
    own = {"split": {"test": ["P3"]}, "panel": {"variable": 3}}
    train = [
        {**own, "model": "ridge"},
        {"model": "ensemble", "ensemble": {"members": ["train/path-ridge"]}},
        {**own, "model": "attention", "name": "along", "encoder": {"name": "tiny"}},
    ]
    config = _config(slides=str(table), train=train, run={"store": str(tmp_path / "store")})
    tiled = {"side": 112.0, "pixels": 224, "patients": patients}
    units = {slide: [f"{slide}.00000"] for slide in patients}
    notes: dict[str, dict[str, Any]] = {
        "spots": {"sections": {slide: {"slide": slide, "patient": one, "genes": 4} for slide, one in patients.items()}},
        "tile": tiled,
        "embed": {**tiled, "encoder": {"name": "tiny"}, "encoder_identity": "seed:0", "units": units},
    }
    for step, own_notes in notes.items():
        (line,) = (one for one in pipeline.plan(config) if one.startswith(f"{step}: "))
        path = StoragePath.of(line.partition(" writes ")[2])
        ArtifactWriter(path, step, "path", path.name.rpartition("-")[2], {}, {}).finish({}, [], own_notes)
    lines = dict(line.split(": ", 1) for line in pipeline.plan(config))
    assert {role: line.partition(" after ")[2] for role, line in lines.items()} == {
        **dict.fromkeys(["spots", "tile", "embed", "train path-ridge", "train along"], ""),
        "impute path-ridge": "train path-ridge",
        "train path-ensemble": "train path-ridge",
        "impute path-ensemble": "train path-ensemble",
        "embed along": "train along",
        "impute along": "embed along, train along",
        "evaluate": "impute path-ridge, impute path-ensemble, impute along",
    }


@pytest.mark.ray
@pytest.mark.slow
def test_a_pipeline_is_done_once_and_a_lost_step_alone_is_done_again(smoke_store: Path) -> None:
    train = [{**TRAIN, "model": "ridge"}, {**TRAIN, "model": "gene_mean"}]
    config = _config(train=train, evaluate={"permutations": 0}, run={"store": str(smoke_store)})
    first = pipeline.run(config)
    assert first.manifest.failures == 1  # the damaged slide
    assert set(first.manifest.inputs) == {
        *("spots", "tile", "embed", "evaluate"),
        *(f"{step} path-{model}" for step in ("train", "impute") for model in ("ridge", "gene_mean")),
    }
    page = (first.path / "index.html").read_bytes().decode()
    assert f'href="../../{first.manifest.inputs["evaluate"]}/report.html"' in page
    assert pipeline.run(config).manifest == first.manifest
    kept = {
        role: (smoke_store / folder / "manifest.json").stat().st_mtime_ns
        for role, folder in first.manifest.inputs.items()
    }
    lost = resolve(str(smoke_store), first.manifest.inputs["impute path-ridge"], "impute")
    (lost.path / "manifest.json").remove()
    assert pipeline.run(config).manifest.fingerprint == first.manifest.fingerprint
    again = {
        role: (smoke_store / folder / "manifest.json").stat().st_mtime_ns
        for role, folder in first.manifest.inputs.items()
    }
    assert {role for role in kept if kept[role] != again[role]} == {"impute path-ridge"}


@pytest.mark.ray
@pytest.mark.faults
def test_embeddings_completion_and_an_ensemble_are_composed_in_one_run(smoke_store: Path) -> None:
    fit = {"epochs": 2, "batch_size": 16, "accumulate_batches": 1}
    split = {"train": ["patient-A", "patient-B"], "test": ["patient-C"]}
    train = [
        {"model": "ensemble", "ensemble": {"members": ["train/mixed-bleep", "train/mixed-ridge"]}},
        {"model": "bleep", "fit": fit, "embeddings": ["embed/views"], "completed": None},
        {"model": "ridge", "neighbour_mean": 3, "completed": None},
        {"model": "ridge", "name": "completed"},
    ]
    config = _config(
        name="mixed",
        embed=[{"name": "plain"}, {"name": "views", "views": "rotations"}],
        complete={"method": "median", "genes": {"share": 0.3}},
        train=train,
        shared={"panel": {"variable": 30}, "split": split},
        evaluate={"permutations": 1},
        run={"store": str(smoke_store), "tracking": "none"},
    )
    found = pipeline.path(config)
    assert list(found)[:5] == ["spots", "tile", "embed plain", "embed views", "complete"]
    assert found["train completed"].manifest.notes["completed"] is not None
    read = [found[f"impute mixed-{model}"].manifest.inputs for model in ("ensemble", "bleep", "ridge")]
    assert [[key for key in one if key.startswith("embeddings")] for one in read] == [
        ["embeddings", "embeddings 2"],
        ["embeddings"],
        ["embeddings", "embeddings 2"],
    ]
    assert "index" not in read[0]
    assert pipeline.path(config)["evaluate"].manifest == found["evaluate"].manifest


CASES: dict[str, Any] = {"targets": "cases", "cases": {"table": "demo/smoke", "scale": "counts"}, **TRAIN}


@pytest.mark.ray
@pytest.mark.faults
def test_a_cohort_with_labels_of_cases_alone_needs_no_spots_and_ends_with_a_report(smoke_store: Path) -> None:
    train = {**CASES, "fit": {"epochs": 3, "batch_size": 2}, "attention": {"embedding": 16, "hidden": 8}}
    run = {"store": str(smoke_store), "tracking": "none"}
    done = pipeline.run(_config(name="cases", train=train, evaluate={"permutations": 2}, run=run))
    assert set(done.manifest.inputs) == {"tile", "embed", "train cases", "impute cases", "evaluate"}
    page = (resolve(str(smoke_store), "evaluate/cases", "evaluate").path / "report.html").read_bytes().decode()
    assert "Tested on 1 case of 1 patient" in page
    assert '"attention":true' in page


def test_trainings_of_cases_and_of_spots_stand_side_by_side_and_spots_are_scored_against() -> None:
    both = _config(train=[CASES, {**TRAIN, "model": "ridge"}])
    assert not both.of_cases
    assert both.against("spots/path") == {"targets": "spots", "spots": "spots/path"}
    alone = _config(train=CASES)
    assert alone.of_cases
    assert alone.against(None) == {"targets": "cases", "cases": CASES["cases"]}
    assert not _config(train=CASES, spots={"min_genes": 1}).of_cases
