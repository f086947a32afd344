"""Flags: every field of a config class is one, read as `--set` reads it; a wrong one is named with the nearest."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from raystp import cli
from raystp.cli.arguments import OWN_FLAGS, Command, WrongCommandLine, keys_of, read_command
from raystp.cli.commands import CHORES, STEPS, config_of
from raystp.cli.fields import fields_of, flag_of, with_nested

EACH = [*STEPS, *CHORES]


def _overrides(*words: str) -> tuple[str, ...]:
    return read_command(words).overrides


def test_a_field_is_a_flag_a_word_and_a_set_and_the_last_wins() -> None:
    words = [
        "tile",
        "--tile-um",
        "112",
        "tile_um=113",
        "--set",
        "tile_um=114",
        "--tile-um=115",
        "--run.store",
        "s3://b/x",
    ]
    found = ("tile_um=112", "tile_um=113", "tile_um=114", "tile_um=115", "run.store=s3://b/x")
    assert _overrides(*words) == found
    config = config_of("tile").load(None, ["slides=a.csv", *found])
    assert (getattr(config, "tile_um", None), config.run.store) == (115.0, "s3://b/x")


@pytest.mark.parametrize("step", EACH)
def test_every_field_is_a_flag_and_none_is_one_of_the_command_line(step: str) -> None:
    keys = keys_of(step, config_of(step))
    assert {"name", "run.store", "run.address"} <= {*keys}
    assert not {flag_of(key) for key in keys} & {*OWN_FLAGS}
    variants = [["--targets", "cases"], []] if step in {"train", "evaluate"} else [[]]
    read: set[str] = set()
    for words in variants:
        kind = config_of(step).variant({"targets": "cases"} if words else {})
        own = [field.key for field in with_nested(fields_of(kind, {})) if not field.is_part and field.key != "targets"]
        found = _overrides(step, *words, *(f"{flag_of(key)}=1" for key in own))[len(words) // 2 :]
        assert [override.partition("=")[0] for override in found] == own
        assert {override.partition("=")[2] for override in found} <= {"1", "[1]"}
        read |= {*own}
    assert read >= {*keys} - {"targets"}


@pytest.mark.parametrize(
    ("words", "override"),
    [
        (["tile", "--tile_um", "112"], "tile_um=112"),
        (["tile", "--tile-um", "112,224"], "tile_um=[112,224]"),
        (["train", "--split.test", "P1,P2"], "split.test=[P1,P2]"),
        (["train", "--split.test", "P1"], "split.test=[P1]"),
        (["train", "--split.test", "[007, NO]"], "split.test=[007, NO]"),
        (["train", "--split.train", "null"], "split.train=null"),
        (["train", "--embeddings", "embed/a"], "embeddings=embed/a"),
        (["impute", "--genes", "ERBB2,GNAS"], "genes=[ERBB2,GNAS]"),
        (["train", "--run.use-gpu"], "run.use_gpu=true"),
        (["train", "--run.use-gpu", "false"], "run.use_gpu=false"),
        (["train", "--run.no-use-gpu"], None),
        (["spots", "--allow-mirrored"], "allow_mirrored=true"),
        (["spots", "--no-allow-mirrored"], "allow_mirrored=false"),
        (["embed", "--also.my-encoder.name", "uni_v2"], "also.my-encoder.name=uni_v2"),
        (["pipeline", "--tile.tile-um", "224"], "tile.tile_um=224"),
        (["pipeline", "--train.split.test", "P1"], "train.split.test=[P1]"),
        (["train", "--fit.lr", "-1"], "fit.lr=-1"),
        (["serve", "--token.env=--odd"], "token.env=--odd"),
        (["predict", "-o", "found"], "out=found"),
        (["publish", "-o=s3://bucket/model?region=eu"], "out=s3://bucket/model?region=eu"),
    ],
)
def test_a_flag_is_read_by_the_type_of_its_field(words: list[str], override: str | None) -> None:
    if override is None:
        with pytest.raises(WrongCommandLine):
            read_command(words)
    else:
        assert _overrides(*words) == (override,)


@pytest.mark.parametrize("value", ["s3://bucket/x?region=eu", "/data/site=A", "./a=b", "slides/", "*.svs"])
def test_a_path_with_an_equals_sign_is_a_bare_argument(value: str) -> None:
    assert _overrides("slides", value) == (f"slides={value}",)
    assert _overrides("slides", f"slides={value}", "run.store=s3://b/x?y=z") == (
        f"slides={value}",
        "run.store=s3://b/x?y=z",
    )


def test_a_flag_without_a_value_leaves_the_next_word_alone() -> None:
    assert _overrides("spots", "--allow-mirrored", "slides=a.csv") == ("allow_mirrored=true", "slides=a.csv")


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ([], "no command is given; the commands are spots, tile,"),
        (["tiles"], "there is no command 'tiles'; did you mean `raystp tile`?"),
        (["tile", "--tile-ums", "64"], "raystp tile has no flag --tile-ums; did you mean --tile-um?"),
        (["tile", "--store", "x"], "raystp tile has no flag --store; did you mean --run.store?"),
        (["tile", "--side", "64"], "raystp tile has no flag --side: it is now --tile-um"),
        (["train", "--knn.kk", "3"], "raystp train has no flag --knn.kk; did you mean --knn.k?"),
        (["train", "--targets", "cases", "--knn.k", "3"], "raystp train has no flag --knn.k"),
        (["tile", "--confg", "x"], "did you mean --config?"),
        (
            ["tile", "slides.csv"],
            "'slides.csv' is neither --FIELD VALUE nor FIELD=VALUE; did you mean --slides ",
        ),
        (["tile", "--set"], "--set needs FIELD=VALUE"),
        (["tile", "--set", "tile_um"], "--set 'tile_um' is not of the form FIELD=VALUE"),
        (["tile", "--tile-um"], "--tile-um needs a value"),
        (["tile", "--tile-um", "--name", "x"], "--tile-um needs a value; for a value that starts with dashes write"),
        (["predict", "a.csv", "-o"], "--out needs a value"),
        (["predict", "a.csv", "--model", "-o", "found"], "--model needs a value"),
        (["predict", "a.csv", "-m", "x"], "raystp predict has no flag -m; its short flags are -o (--out), -h."),
        (["tile", "-o", "x"], "raystp tile has no flag -o; its short flags are -h."),
        (["methods", "--jsn"], "raystp methods takes --json alone, got --jsn"),
        (["completion", "fish"], "raystp completion needs one of bash, zsh, got fish"),
    ],
)
def test_a_wrong_command_line_is_one_sentence_and_the_exit_status_is_2(
    words: list[str], expected: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(words) == 2
    last = json.loads(capsys.readouterr().out)
    assert (last["status"], last["exit"], last["error"]) == ("failed", 2, "WrongCommandLine")
    assert expected in last["message"]
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    assert cli.main(words) == 2
    assert capsys.readouterr().err == f"{last['message']}\n"


def test_the_flags_of_a_kind_of_work_follow_the_config_file(tmp_path: Path) -> None:
    file = tmp_path / "train.yaml"
    file.write_text("targets: cases\n")
    words = ["train", "--config", str(file), "--cases.table", "t.csv"]
    assert read_command(words) == Command("train", "run", str(file), ("cases.table=t.csv",))
    with pytest.raises(WrongCommandLine, match=r"has no flag --cases\.table"):
        read_command(["train", "--cases.table", "t.csv"])


CODE = """
import sys
import raystp.cli as c
for step in {steps!r}:
    c.main([step, "--help-all"])
    c.main([step, "--template"])
heavy = {{"ray", "torch", "mlflow", "pandas", "pyarrow", "scipy", "anndata"}} & {{*sys.modules}}
assert not heavy, heavy
"""


def test_help_and_templates_need_neither_ray_nor_torch_nor_mlflow_nor_pandas() -> None:
    subprocess.run([sys.executable, "-c", CODE.format(steps=EACH)], capture_output=True, check=True)
