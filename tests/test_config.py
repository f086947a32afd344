"""Configs: frozen, closed, read from plain YAML; the fingerprint covers neither paths nor resources."""

import dataclasses
import importlib
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import pytest
from pydantic import BaseModel, Field, ValidationError

from raystp import cli
from raystp.config import Config, Location, RunConfig, StepConfig, relative_paths
from raystp.errors import ConfigError
from raystp.steps.encoder_source import EncoderConfig
from raystp.steps.train.config import TrainConfig


class Part(Config):
    size: float = Field(default=1.0, gt=0)
    weights: str | None = None


class ToyRun(RunConfig):
    workers: int = Field(default=1, ge=1)


class Toy(StepConfig[ToyRun]):
    where: ClassVar[frozenset[str]] = frozenset({"tiles"})
    tiles: str
    side: float = 112.0
    part: Part = Field(default_factory=Part)
    other: Part | None = None
    run: ToyRun = Field(default_factory=ToyRun)


TRAIN = ["spots=spots/a", "embeddings=embed/a", "split.test=[B]"]


def _file(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "toy.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def _refused(tmp_path: Path, text: str, *overrides: str) -> str:
    with pytest.raises(ConfigError) as caught:
        Toy.load(_file(tmp_path, text), overrides)
    return str(caught.value)


def test_a_file_holds_differences_and_the_class_the_rest(tmp_path: Path) -> None:
    config = Toy.load(_file(tmp_path, "tiles: tile/a\npart:\n  size: 2\n"))
    assert (config.tiles, config.part.size, config.side, config.run.store) == ("tile/a", 2.0, 112.0, "store")
    assert Toy.load(_file(tmp_path, "# nothing but a comment\n"), ["tiles=tile/a"]) == Toy(tiles="tile/a", run=ToyRun())


def test_an_override_wins_over_the_file_field_by_field(tmp_path: Path) -> None:
    file = _file(tmp_path, "tiles: tile/a\npart: {size: 2, weights: w}\nrun:\n")
    overrides = ["part.size=3", "run.store=/data/a=b", "run.workers=4", "other.size=5", "tiles=tile/b"]
    config = Toy.load(file, overrides)
    assert (config.part, config.other) == (Part(size=3, weights="w"), Part(size=5))
    assert (config.run.store, config.run.workers, config.tiles) == ("/data/a=b", 4, "tile/b")


def test_a_config_is_frozen() -> None:
    config = Toy.of({"tiles": "tile/a", "run": {}})
    with pytest.raises(ValidationError, match="frozen"):
        config.side = 4.0  # type: ignore[misc]  # mypy knows it too
    with pytest.raises(ValidationError, match="frozen"):
        config.run.workers = 4  # type: ignore[misc]  # the same


def test_every_fault_is_in_one_message_that_names_the_file(tmp_path: Path) -> None:
    message = _refused(tmp_path, "sidee: 3\npart: {size: -1}\n", "run.workers=none")
    assert message.splitlines() == [
        f"{tmp_path / 'toy.yaml'} is not a valid Toy:",
        "  run.workers: Input should be a valid integer, unable to parse string as an integer, got 'none'",
        "  tiles: must be given",
        "  part.size: Input should be greater than 0, got -1",
        "  sidee: there is no such field; did you mean 'side'?",
    ]


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("encodr=1", "encodr: there is no such field; did you mean 'encoder'?"),
        ("run.wokers=1", "run.wokers: there is no such field; did you mean 'workers'?"),
        ("encoder.nmae=1", "encoder.nmae: there is no such field; did you mean 'name'?"),  # of `EncoderConfig | None`
        ("fit.epohcs=1", "fit.epohcs: there is no such field; did you mean 'epochs'?"),  # of a plain dataclass
        ("zzz=1", "zzz: there is no such field"),
    ],
)
def test_an_unknown_key_is_refused_with_the_nearest_known_one(override: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        TrainConfig.load(None, [*TRAIN, override])
    assert str(caught.value).splitlines() == ["the command line is not a valid SpotsTrainConfig:", f"  {message}"]


@pytest.mark.parametrize("override", ["tiles", "=3", "part..size=3", ".size=3"])
def test_an_override_that_is_no_key_and_value_is_refused(override: str) -> None:
    with pytest.raises(ConfigError, match=r"is not of the form key=value, as in --set run.store=/data/store"):
        Toy.load(None, [override])


def test_an_override_below_a_single_value_is_refused(tmp_path: Path) -> None:
    assert "'tiles' is a single value in the file, not a group" in _refused(tmp_path, "tiles: a", "tiles.b=1")


@pytest.mark.parametrize("number", [".inf", "-.inf", ".nan"])
def test_a_number_is_finite(number: str) -> None:
    with pytest.raises(ConfigError, match="side: Input should be a finite number"):
        Toy.load(None, ["tiles=a", f"side={number}"])


@pytest.mark.parametrize("name", ["", "a/b", "../up", "a b", "ü", "x" * 65, '"a\\n"'])
def test_an_artifacts_name_is_one_that_a_folder_can_have(name: str) -> None:
    with pytest.raises(ConfigError, match="name: "):
        Toy.load(None, ["tiles=a", f"name={name}"])


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("fit.epochs=0", "epochs must be finite and at least 1"),
        ("fit.batch_size=1", "batch_size must be at least 2"),
        ("fit.lr=-1", "lr must be finite and at least 0"),
        ("fit.lr=.inf", "Input should be a finite number"),
        ("bleep.dim=0", "dim must be finite and at least 1"),
    ],
)
def test_numbers_that_no_training_accepts_are_refused_on_loading(override: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        TrainConfig.load(None, [*TRAIN, override])


@pytest.mark.parametrize(
    "tag", ["!!python/object/apply:os.system ['exit 1']", "!!python/name:os.system", "!!python/tuple [1]", "!mine 3"]
)
def test_yaml_gives_plain_values_only(tmp_path: Path, tag: str) -> None:
    assert "is not YAML: could not determine a constructor for the tag" in _refused(tmp_path, f"tiles: {tag}")
    with pytest.raises(ConfigError, match="could not determine a constructor"):
        Toy.load(None, [f"tiles={tag}"])


def test_yaml_aliases_that_expand_without_limit_are_refused_in_a_short_message(tmp_path: Path) -> None:
    lines = ["a: &a [x,x,x,x,x,x,x,x,x]"]
    lines += [
        f"{name}: &{name} [{','.join([f'*{below}'] * 9)}]" for below, name in zip("abcdefgh", "bcdefghi", strict=True)
    ]
    message = _refused(tmp_path, "\n".join([*lines, "tiles: *i"]))
    assert "tiles: Input should be a valid string, got [[" in message
    assert len(message) < 2000


def test_yaml_with_too_deep_nesting_is_refused(tmp_path: Path) -> None:
    assert "its nesting is too deep for a config" in _refused(tmp_path, "tiles: " + "[" * 500 + "]" * 500)
    assert "got [[[...]]]" in _refused(tmp_path, "tiles: &a [*a]")


def test_a_duplicate_key_is_refused(tmp_path: Path) -> None:
    message = _refused(tmp_path, "tiles: a\npart: {size: 1}\npart: {weights: w}\n")
    assert "the key 'part' is given twice" in message
    assert "line 3" in message


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"- a\n", "contains a list; a config is a mapping"),
        (b"\xff\xfe", "cannot be read as text"),
        (b"tiles: [", "is not YAML"),
        (b"1: x\ntiles: a", "the key 1 is not a string"),
    ],
)
def test_a_file_that_is_no_config_is_refused(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "toy.yaml"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=message):
        Toy.load(path)


def test_an_absent_file_is_refused_with_the_files_of_its_folder(tmp_path: Path) -> None:
    beside = _file(tmp_path, "tiles: a")
    with pytest.raises(ConfigError, match=f"no config file {tmp_path / 'toi.yaml'}; its folder has {beside}"):
        Toy.load(tmp_path / "toi.yaml")
    with pytest.raises(ConfigError, match="cannot be read as text"):
        Toy.load(tmp_path)


def _what(*overrides: str) -> dict[str, Any]:
    return Toy.load(None, ["tiles=tile/a", *overrides]).fingerprint_values()


def test_paths_resources_and_name_are_not_in_the_fingerprint() -> None:
    assert _what() == _what("run.store=/elsewhere", "run.workers=8", "run.address=ray://x") == _what("name=other")
    assert _what() == _what("tiles=/another/path/to/the/same")
    assert _what() != _what("side=113")


def test_the_manifest_has_no_store() -> None:
    message = Toy.load(None, ["tiles=tile/a", "run.store=s3://bucket/secret", "name=n"]).manifest_values()
    assert message == {
        "name": "n",
        "tiles": "tile/a",
        "side": 112.0,
        "part": {"size": 1.0, "weights": None},
        "other": None,
    }


def test_neither_the_weights_path_nor_the_digest_that_was_wanted_is_what_is_computed() -> None:
    here, there = (
        EncoderConfig(name="tiny", weights=path, sha256="a" * 64).fingerprint_values() for path in ("a.x", "b.x")
    )
    assert (
        here == there == EncoderConfig(name="tiny").fingerprint_values()
    )  # the digest that was found is an input of its own
    assert here != EncoderConfig(name="tiny", seed=1).fingerprint_values()


def test_the_fingerprint_covers_whether_a_panel_is_given_but_not_its_path() -> None:
    here, there = (
        TrainConfig.load(None, [*TRAIN, f"panel.file={path}"]).fingerprint_values() for path in ("a.txt", "b.txt")
    )
    assert here == there != TrainConfig.load(None, TRAIN).fingerprint_values()


def _locations(config: type[BaseModel]) -> set[str]:
    """Return the Location fields, of nested configs too."""
    found = {
        name for name, field in config.model_fields.items() if any(isinstance(m, Location) for m in field.metadata)
    }
    for field in config.model_fields.values():
        for kind in (field.annotation, *typing.get_args(field.annotation)):
            if isinstance(kind, type) and issubclass(kind, BaseModel):
                found |= _locations(kind)
    return found


def test_every_field_with_the_path_of_an_input_is_a_location() -> None:
    for step in cli.STEPS:
        config = importlib.import_module(f"raystp.steps.{step}.step").CONFIG
        for kind in {config.variant({"targets": "spots"}), config.variant({"targets": "cases"})}:
            assert (config.where & kind.model_fields.keys()) | {"store"} <= _locations(kind), step
    assert {"weights", "file", "tracking"} <= _locations(TrainConfig.variant({}))


@pytest.mark.parametrize(
    ("override", "relative"),
    [
        ("spots=spots/a", False),  # an artifact in the store
        ("spots=s3://bucket/spots/a", False),
        ("spots=/data/store/spots/a-0123456789ab", False),
        ("spots=store/spots/a-0123456789ab", True),
        ("spots=tile/a", True),  # of another step, so it is a path
        ("panel.file=genes.txt", True),
        ("panel.file=~/genes.txt", False),
        ("run.store=.", True),
        ("run.tracking=none", False),
        ("run.tracking=http://mlflow:5000", False),
        ("run.tracking=sqlite:///mlflow.db", True),
        ("run.tracking=sqlite:////data/mlflow.db", False),
    ],
)
def test_relative_paths_are_found(override: str, *, relative: bool) -> None:
    config = TrainConfig.load(None, [*TRAIN, "run.store=/data/store", override])
    field, _, value = override.partition("=")
    assert list(relative_paths(config)) == ([(field, value)] if relative else [])


@dataclasses.dataclass(frozen=True)
class Steps:
    RENAMED: ClassVar[Mapping[str, str]] = {"contrast": "batch_size"}
    batch_size: int = 8


class Spots(Config):
    RENAMED: ClassVar[Mapping[str, str]] = {"squares": "boxes"}
    targets: Literal["spots"] = "spots"
    boxes: int = 1


class Cases(Config):
    targets: Literal["cases"] = "cases"
    bags: int = 1


class OldRun(RunConfig):
    RENAMED: ClassVar[Mapping[str, str]] = {"width": "workers"}
    workers: int = 1


class Renamed(StepConfig[OldRun]):
    RENAMED: ClassVar[Mapping[str, str]] = {
        "bank": "vectors",
        "ways": "split into fit.batch_size and run.workers",
    }
    vectors: str = "expression"
    fit: Steps = Steps()
    again: Steps | None = None
    each: dict[str, Steps] = Field(default_factory=dict)
    many: list[Spots] = Field(default_factory=list)
    kind: Annotated[Spots | Cases, Field(discriminator="targets")] = Field(default_factory=Spots)
    either: Spots | Cases = Field(default_factory=Spots)
    run: OldRun = Field(default_factory=OldRun)


class RenamedAgain(Renamed):
    RENAMED: ClassVar[Mapping[str, str]] = {"kinds": "kind"}


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("bank=spot", "bank: renamed to vectors"),
        ("kinds=1", "kinds: renamed to kind"),
        ("ways=1", "ways: split into fit.batch_size and run.workers"),
        ("run.width=4", "run.width: renamed to run.workers"),
        ("fit.contrast=4", "fit.contrast: renamed to fit.batch_size"),  # of a plain dataclass
        ("again.contrast=4", "again.contrast: renamed to again.batch_size"),
        ("each.a.contrast=4", "each.a.contrast: renamed to each.a.batch_size"),
        ("many=[{squares: 4}]", "many.0.squares: renamed to many.0.boxes"),
        ("kind={targets: spots, squares: 4}", "kind.spots.squares: renamed to kind.spots.boxes"),
        ("either={targets: spots, squares: 4}", "either.Spots.squares: renamed to either.Spots.boxes"),
        ("run.bank=spot", "run.bank: there is no such field"),  # renamed elsewhere, unknown here
    ],
)
def test_a_renamed_key_is_refused_with_its_new_name(override: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        RenamedAgain.load(None, [override])
    assert message in [line.strip() for line in str(caught.value).splitlines()]


def test_a_renamed_key_in_a_stored_manifest_is_refused_with_its_new_name() -> None:
    stored = RenamedAgain().manifest_values() | {"run": {}}
    stored["fit"] = {"contrast": 8}
    with pytest.raises(
        ConfigError, match=r"manifest.json is not a valid RenamedAgain:\n  fit.contrast: renamed to fit.batch"
    ):
        RenamedAgain.of(stored, "store/train/a/manifest.json")


def test_renamed_keys_are_no_fields() -> None:
    assert "RENAMED" not in Renamed.model_fields
    assert Renamed().manifest_values()["fit"] == {"batch_size": 8}
