"""Wrong inputs of tune, serve, complete and pipeline, by command line: one sentence, before Ray starts.

A person reads the sentence once on stderr, and a scheduler the same one in the JSON line. The address of a cluster that
does not exist shows that no input gets as far as Ray.
"""

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest

from raystp import cli
from raystp.cli import result
from raystp.storage import StoragePath
from tests.steps.publish.published import add_index

TRAIN = "train={model: bleep, spots: spots/toy, embeddings: embed/toy, split: {test: [P3], validation: [P2]}}"
SPACE = "space={bleep.temperature: [loguniform, 0.01, 1]}"
JOINT = ["model=train/joint", "index=index/joint"]
FIT = ["spots=spots/toy", "split.train=[P1]"]
SLIDES = "slides={folder}/slides.csv"
RIDGE = "train={model: ridge, split: {test: [P1]}}"

Case = tuple[str, list[str], str]

CHANGED: list[Case] = [
    ("tune", [TRAIN.replace("[P3]", "[P9]"), SPACE], "split: no section 'P9'; there are 'S1', 'S2'"),
    ("tune", [TRAIN.replace("[P2]", "[P3]"), SPACE], "split: sections 'S3' are listed twice: a section is on one side"),
    ("tune", [TRAIN.replace("spots/toy", "embed/toy"), SPACE], "embed/toy does not exist (an artifact in the store is"),
    ("tune", ["train={folder}", SPACE], "{folder} cannot be read as text: Is a directory"),
    ("tune", ["train={folder}/binary", SPACE], "binary cannot be read as text: it is not UTF-8 at byte 128"),
    ("serve", ["model=index/joint"], "index/joint is an artifact of the 'index' step; give one of the 'train' step"),
    ("serve", ["model="], "model: Input should be a valid string, got no value"),
    ("serve", [*JOINT, "encoder.name=tiny"], "reads 2 features of encoder 'tiny', and encoder 'tiny' gives 128: set"),
    ("serve", [*JOINT, "run.shard_replicas=3"], "run.shard_replicas 3 needs run.shard_actors: set it, or remove"),
    ("serve", [*JOINT, "run.config_file={folder}"], "run.config_file: {folder} is a folder; give the name of a YAML"),
    ("serve", [*JOINT, "token.file=/none"], "token file /none cannot be read: No such file or directory; create one"),
    ("complete", [*FIT, "sections=[]"], "sections: List should have at least 1 item after validation, not 0"),
    ("complete", [*FIT, "sections=[P7]"], "sections: no section 'P7'; there are 'S1'"),
    ("complete", [*FIT, "genes.file=/none.txt"], "cannot read /none.txt: No such file or directory"),
    ("pipeline", ["slides=/none/slides.csv"], "slides: no slide table at /none/slides.csv"),
    ("pipeline", ["slides={folder}/empty"], "the folder has no slide file, {folder}/empty"),
    ("pipeline", [SLIDES, "embed.encoder.name=uni9"], "embed default: unknown encoder 'uni9'; choose"),
    ("pipeline", [SLIDES, RIDGE.replace("P1", "PZ")], "train default: split.test: no measured slide is of 'PZ'; the"),
    ("pipeline", [SLIDES, "folds=3"], "`folds` needs `train`: there is nothing to cross-validate"),
    (
        "pipeline",
        [SLIDES, "train={model: ridge}", "folds=three"],
        "folds: write a number of folds from 2 on, `patient`",
    ),
]
"""Inputs that once had a worse sentence, or a later one."""

OTHER: list[Case] = [
    ("tune", [SPACE], "train: must be given"),
    ("tune", ["train=/none.yaml", SPACE], "no config file /none.yaml"),
    ("tune", [TRAIN, "space={}"], "space: Dictionary should have at least 1 item"),
    ("tune", [TRAIN, "space={bleep.temperatur: [uniform, 0, 1]}"], "no such field; did you mean 'temperature'?"),
    ("tune", [TRAIN, "space={bleep.temperature: [normal, 0, 1]}"], "unknown distribution 'normal'; choose one of"),
    ("tune", [TRAIN, SPACE, "trials=0"], "trials: Input should be greater than or equal to 1, got 0"),
    ("tune", [TRAIN, SPACE, "serch=random"], "serch: there is no such field; did you mean 'search'?"),
    ("tune", [TRAIN.replace(", validation: [P2]", ""), SPACE], "compares trials on a validation side: set split"),
    ("serve", ["model=train/none"], "no artifact 'train/none' in"),
    ("serve", ["model=train/joint"], "needs a reference index: run `raystp index`, then set `index`"),
    ("serve", ["model=train/toy", "index=index/joint"], "was built with model train/joint-"),
    ("serve", [*JOINT, "run.port=http"], "run.port: Input should be a valid integer"),
    ("serve", [*JOINT, "run.host=0.0.0.0"], "run.host 0.0.0.0 is not loopback, which requires a token"),
    ("serve", [*JOINT, "slides=[/none]"], "`slides` needs `encoder`"),
    ("serve", [*JOINT, "token.file=a", "token.env=B"], "token.file and token.env are both set: remove one"),
    ("complete", ["spots=spots/none", "split.train=[P1]"], "no artifact 'spots/none' in"),
    ("complete", ["spots=", "split.train=[P1]"], "spots: Input should be a valid string, got no value"),
    ("complete", ["spots=spots/toy"], "split: must be given"),
    ("complete", ["spots=spots/toy", "split.train=P1"], "Input should be a valid list, got 'P1'; write [P1]"),
    ("complete", [*FIT, "method=magic"], "method: Input should be 'median', 'linear' or 'spackle', got 'magic'"),
    ("complete", [*FIT, "methd=median"], "methd: there is no such field; did you mean 'method'?"),
    ("complete", [*FIT, "genes.share=0"], "genes.share: Input should be greater than 0, got 0"),
    ("complete", [*FIT, "split.validation=[P1]"], "split: sections 'S1', 'S4' are listed twice"),
    ("pipeline", [], "slides: must be given"),
    ("pipeline", [SLIDES, "tile.tile_umm=3"], "pipeline: tile is not a valid TileConfig"),
    ("pipeline", [SLIDES, RIDGE, "impute.k=0"], "k: Input should be a whole number from 1 on, or 'all', got 0"),
    ("pipeline", [SLIDES, RIDGE, "folds=3"], "split.test: the folds choose who is held out; remove it"),
    ("pipeline", ["slides={folder}/binary"], "binary cannot be read as text (line 2 is not UTF-8, byte 0x80)"),
    ("pipeline", [SLIDES, "run.store={folder}/binary"], "the store {folder}/binary is not writable"),
]


@pytest.fixture(scope="module")
def store(made_store: StoragePath, tmp_path_factory: pytest.TempPathFactory) -> StoragePath:
    folder = tmp_path_factory.mktemp("wrong") / "store"
    shutil.copytree(made_store.local_path, folder)
    add_index(StoragePath.of(folder))
    return StoragePath.of(folder)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "binary").write_bytes(bytes(range(256)))
    (tmp_path / "empty").mkdir()
    rows = [f"S{n},S{n}.png,P{n},0.5,scverse,S{n}.h5ad" for n in (1, 2)]
    (tmp_path / "slides.csv").write_text("\n".join(["slide,path,patient,mpp,layout,counts", *rows]))
    return tmp_path


def _named(case: Case) -> str:
    return f"{case[0]} {case[2][:40]}"


@pytest.mark.parametrize(
    "case", [*CHANGED, *(pytest.param(one, marks=pytest.mark.faults) for one in OTHER)], ids=_named
)
def test_a_wrong_input_is_one_sentence_for_a_person_and_the_same_for_a_scheduler(
    store: StoragePath,
    folder: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    *,
    case: Case,
) -> None:
    step, words, sentence = case
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:9")
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    given = [word.replace("{folder}", str(folder)) for word in words]
    given += [] if any(word.startswith("run.store") for word in given) else [f"run.store={store}"]
    assert cli.main([step, *(f"--set={word}" for word in given)]) == result.FAILED
    printed = capsys.readouterr()
    summary: dict[str, Any] = json.loads(printed.out.splitlines()[-1])
    assert (summary["step"], summary["status"], summary["exit"]) == (step, "failed", result.FAILED)
    assert sentence.replace("{folder}", str(folder)) in summary["message"]
    assert printed.err.count(summary["message"]) == 1
    assert "Traceback" not in printed.err


def test_a_wrong_flag_is_refused_with_the_nearest_one(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["pipeline", "--tile-um", "112"]) == result.USAGE
    assert json.loads(capsys.readouterr().out)["message"].startswith("raystp pipeline has no flag --tile-um; did you")
