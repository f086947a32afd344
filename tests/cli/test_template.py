"""`--template` and `--dry-run`: what is printed loads back to the same config; a dry run writes and starts nothing."""

import contextlib
import io
import re
from pathlib import Path

import pytest
import ray

from raystp import cli
from raystp.artifacts import ArtifactWriter, create_or_open
from raystp.cli.commands import CHORES, STEPS, config_of
from raystp.cli.fields import fields_of, with_nested
from raystp.digests import digest_of
from raystp.slides.table import read_slide_table
from raystp.steps.spots import step as spots

GIVEN = {
    "spots": ["slides=a.csv"],
    "tile": ["slides=a.csv", "tile_um=[112, 224]"],
    "embed": ["tiles=tile/a", "encoder.name=uni_v2"],
    "import": ["format=trident", "path=a", "slides=a.csv"],
    "export": ["format=trident", "artifact=embed/a", "out=a"],
    "complete": ["spots=spots/a", "split.train=[A]"],
    "train": ["spots=spots/2024", "embeddings=embed/a", "split.test=[007, NO]", "fit.lr=1e-3"],
    "tune": [
        "train={spots: spots/a, embeddings: embed/a, split: {test: [C], validation: [B]}}",
        "space={fit.lr: [loguniform, 1e-4, 1e-2]}",
    ],
    "index": ["model=train/a", "spots=spots/a", "embeddings=embed/a"],
    "impute": ["embeddings=embed/a", "model=train/a", "without={patient: [P1]}", "index=index/a"],
    "evaluate": ["spots=spots/a", "predictions=[impute/a]"],
    "serve": ["model=train/a", "token.env=TOKEN", "run.host=0.0.0.0"],
    "pipeline": ["slides=a.csv", "train.split.test=[P1]", "tile.tile_um=56"],
    "demo": ["methods=[ridge]"],
    "send": ["run.store=/s"],
    "doctor": ["gated=true"],
    "plan": ["slides=a.csv", "embed.encoder.name=uni_v2"],
    "inspect": ["item=a.h5"],
    "slides": ["slides=a"],
    "run": ["slides=a", "encoder=uni_v2", "model=[ridge, knn]"],
    "predict": ["slides=a", "model=hf-hub:a/b", "genes=[ERBB2]"],
    "publish": ["model=train/a", "out=/b"],
}
"""For each step, fields that must be given, and some others."""

MORE = [
    ("train", ["model=nh2st", "spots=spots/a", "embeddings=embed/a", "split.test=[P]", "nh2st.smooth_labels=true"]),
    ("train", ["spots=spots/a", "tiles=tile/a", "encoder.name=tiny", "split.test=[P]"]),
    ("train", ["targets=cases", "embeddings=embed/a", "cases.table=t.csv", "split.test=[P]"]),
    ("train", ["model=ensemble", "ensemble.members=[train/a, train/b]"]),
    ("evaluate", ["targets=cases", "predictions=[impute/a]", "cases.table=t.csv"]),
]
EACH = [*GIVEN.items(), *MORE]


def _printed(*words: str) -> str:
    with contextlib.redirect_stdout(io.StringIO()) as out:
        assert cli.main(words) == 0
    return out.getvalue()


def test_every_step_is_tried() -> None:
    assert {*GIVEN} >= {*STEPS, *CHORES}


@pytest.mark.parametrize(("step", "given"), EACH)
def test_a_template_loads_to_the_config_that_it_was_printed_for(step: str, given: list[str], tmp_path: Path) -> None:
    file = tmp_path / "t.yaml"
    file.write_text(_printed(step, "--template", *given))
    expected = config_of(step).load(None, given)
    assert config_of(step).load(file) == expected
    # Every default in it is the default: with each line set, it is still the same config.
    file.write_text(re.sub(r"^# ", "", file.read_text(), flags=re.MULTILINE))
    assert config_of(step).load(file) == expected


@pytest.mark.parametrize("step", [*STEPS, *CHORES])
def test_a_template_without_fields_adds_nothing_and_names_every_field(step: str, tmp_path: Path) -> None:
    file, text = tmp_path / "t.yaml", _printed(step, "--template")
    file.write_text(text)
    assert config_of(step).read_values(file) == {}
    kind = config_of(step).variant({})
    for field in with_nested(fields_of(kind, {})):
        assert re.search(rf"^#+ *{field.path[-1]}:", text, re.MULTILINE), field.key
        for word in field.sentence.split()[:3]:
            assert word in text


@pytest.mark.parametrize("step", [*STEPS, *CHORES])
def test_the_help_of_a_step_lists_every_field_with_its_sentence_and_run_last(step: str) -> None:
    text = _printed(step, "--help-all")
    kind = config_of(step).variant({})
    words = " ".join(text.split())
    for field in with_nested(fields_of(kind, kind.with_computed({}))):
        if not field.is_part:
            assert re.search(rf"^  (-\w, )?{field.flag} ", text, re.MULTILINE)
            assert field.sentence in words
    short = _printed(step, "--help")
    assert short.count("\n") < text.count("\n") or "parts (--help-all" not in short
    last = max(short.index(f" {field.flag}") for field in fields_of(kind, {}) if field.key != "run")
    assert short.index("  --run.store") > last


@pytest.mark.parametrize(("step", "given"), [(step, given) for step, given in EACH if step == "spots"])
def test_a_dry_run_prints_a_config_that_loads_and_what_would_be_done(
    step: str, given: list[str], tmp_path: Path
) -> None:
    table, store = tmp_path / "slides.csv", tmp_path / "store"
    table.write_text("slide,path,patient,layout,counts\nA,A.svs,P,scverse,A.h5ad\n")
    words = [*given, f"slides={table}", f"run.store={store}"]
    before = ray.is_initialized()  # by other tests of this process
    text = _printed(step, "--dry-run", *words)
    file = tmp_path / "again.yaml"
    file.write_text(text)
    config = config_of(step).load(None, words)
    assert config_of(step).load(file) == config
    assert f"# reads slides: {table}\n" in text
    (path,) = re.findall(r"^# writes (.*)$", text, re.MULTILINE)
    assert text.endswith("# not done\n")
    assert not store.exists()
    assert ray.is_initialized() == before
    (row,) = read_slide_table(str(table), None, "store")
    writer = create_or_open(config, step, {"sections": digest_of([spots._identity(row)])})
    assert isinstance(writer, ArtifactWriter)
    assert str(writer.path) == path
    writer.finish({"sections": 1}, [{"slide": "A", "stage": "spots", "reason": "damaged"}])
    assert "# done already, at 20" in (again := _printed(step, "--dry-run", *words))
    assert "with 1 failures; run.retry_failed=true tries them again" in again


def test_a_dry_run_of_the_pipeline_says_which_steps_wait(tmp_path: Path) -> None:
    table = tmp_path / "slides.csv"
    table.write_text("slide,path,patient,layout,counts\nA,A.svs,P,scverse,A.h5ad\n")
    words = [f"slides={table}", "train.split.test=[P]", f"run.store={tmp_path / 'store'}", "name=x"]
    lines = re.findall(r"^# (.*)$", _printed("pipeline", "--dry-run", *words), re.MULTILINE)
    assert lines[0].startswith(f"spots: not done, writes {tmp_path / 'store' / 'spots' / 'x-'}")
    assert {line.partition(": ")[0]: {*line.partition("after ")[2].split(", ")} for line in lines[1:]} == {
        "tile": {"spots"},
        "embed": {"tile"},
        "train x": {"embed", "spots"},
        "index x": {"embed", "train x", "spots"},
        "impute x": {"embed", "index x", "train x", "spots"},
        "evaluate": {"impute x", "spots"},
    }
    assert "# draw: not done, writes" in _printed("demo", "--dry-run", f"run.store={tmp_path / 'demo'}")
    assert [path.name for path in tmp_path.iterdir()] == ["slides.csv"]


def test_a_dry_run_with_an_absent_input_prints_the_config_and_the_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["embed", "--dry-run", "--tiles", "tile/a", "--run.store", str(tmp_path)]) == 1
    assert "no artifact 'tile/a'" in capsys.readouterr().out
