"""Configs: frozen, closed, read from plain YAML; the fingerprint covers neither paths nor resources."""

import dataclasses
import importlib
import typing
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import pytest
from pydantic import BaseModel, Field, ValidationError

from raystp.cli import commands as cli
from raystp.config import Config, Location, RunConfig, StepConfig, relative_paths
from raystp.config_fields.values import ValuesOf, field_names, field_type, members, read_override
from raystp.errors import ConfigError
from raystp.steps import package_of
from raystp.steps.embed.config import EmbedConfig
from raystp.steps.input_config import EncoderConfig
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
        f"{tmp_path / 'toy.yaml'} is not a valid config:",
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
    assert str(caught.value).splitlines() == [
        "the command line is not a valid config of `raystp train`:",
        f"  {message}",
    ]


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("fit=3", "fit: must be a group of fields, such as `fit.epochs`, got 3"),  # of a plain dataclass
        ("encoder=tiny", "encoder: must be a group of fields, such as `encoder.name`, got 'tiny'"),
        ("split=x", "split: must be a group of fields, such as `split.protocol`, got 'x'"),
        ("choose=3", "choose: Input should be a group of names and values, got 3"),
        ("choose.embeddings=a", "choose.embeddings: Input should be a valid list, got 'a'; write [a]"),
    ],
)
def test_a_value_in_place_of_a_group_is_refused_with_a_field_of_the_group(override: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        TrainConfig.load(None, [*TRAIN, override])
    assert str(caught.value).splitlines()[1:] == [f"  {message}"]


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
        Toy.load(None, ["tiles=a", f"side={tag}"])


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
        config = importlib.import_module(f"{package_of(step)}.step").CONFIG
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
        ConfigError, match=r"manifest.json is not a valid config:\n  fit.contrast: renamed to fit.batch"
    ):
        RenamedAgain.of(stored, "store/train/a/manifest.json")


def test_renamed_keys_are_no_fields() -> None:
    assert "RENAMED" not in Renamed.model_fields
    assert Renamed().manifest_values()["fit"] == {"batch_size": 8}


AWKWARD = [
    *(
        "2024",
        "1e5",
        "1_000",
        "007",
        "08",
        "0x1F",
        "1:30",
        "-",
        ".",
        ".5",
        "+1",
        "inf",
        ".nan",
        "2020-01-01",
        "2024-13-01",
    ),
    *(
        "on",
        "NO",
        "y",
        "True",
        "yes",
        "=",
        "a=b",
        "<<",
        "store #2",
        "#1.tif",
        "a: b",
        "b:",
        "- x",
        "? x",
        "|",
        ">",
        "%41",
    ),
    *(
        "[a].tif",
        "{x",
        "*x",
        "&x",
        "!x",
        "!!int 3",
        "@x",
        "`x`",
        "'q\".tif",
        '"x',
        "x'",
        "x;y, z",
        "a?b",
        "a\\b",
        "Ä ö",
        "~x",
    ),
]
"""Texts that YAML reads as another value, as a part of the text, or not at all."""


def _text_fields(kind: object, prefix: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], object]]:
    """Yield the path and type of each field that holds a text, or several, of nested configs too."""
    for part in members(kind):
        for name in field_names(part):
            found = typing.get_type_hints(part, include_extras=True)[name]
            if {str, list[str]} & set(members(found)):
                yield (*prefix, name), found
            yield from _text_fields(found, (*prefix, name))


def test_a_faulty_config_names_the_command_that_reads_it() -> None:
    for step in [*cli.STEPS, *cli.CHORES]:
        config = importlib.import_module(f"{package_of(step)}.step").CONFIG
        with pytest.raises(ConfigError, match=rf"^the config is not a valid config of `raystp {step}`:\n"):
            config.of({"no_field": 1})


@pytest.mark.parametrize("step", [*cli.STEPS, *cli.CHORES])
def test_every_field_of_text_keeps_its_text(step: str) -> None:
    config = importlib.import_module(f"{package_of(step)}.step").CONFIG
    fields = {path for kind in _kinds(config) for path, _ in _text_fields(kind)}
    assert {("name",), ("run", "store")} <= fields
    for kind in _kinds(config):
        for path, found in _text_fields(kind):
            assert field_type(kind, path, {}) == found
            groups = len(members(found)) > 1  # values of another config, or the path of its file
            for text in AWKWARD:
                if str in members(found) and not (groups and text[0] in "[{"):
                    assert read_override(f" {text} ", found) == text, (path, text)
            if list[str] in members(found):
                assert read_override("[007, NO, 1e5, 2020-01-01]", found) == ["007", "NO", "1e5", "2020-01-01"], path


def _kinds(config: type[StepConfig[Any]]) -> list[type[StepConfig[Any]]]:
    return list(dict.fromkeys(config.variant({"targets": targets}) for targets in ("spots", "cases")))


class Texts(Config):
    text: str = ""
    maybe: Annotated[str | None, Location(words=("here",))] = None
    word: Literal["on", "off"] | None = None
    listed: list[str] = Field(default_factory=list)
    each: dict[str, list[str]] = Field(default_factory=dict)
    count: int | None = None
    share: float = 0.5
    either: int | str = 0
    other: Annotated[dict[str, Any], ValuesOf(Part)] = Field(default_factory=dict)


class TextStep(StepConfig[RunConfig]):
    texts: Texts = Field(default_factory=Texts)
    run: RunConfig = Field(default_factory=RunConfig)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("text=2024", "2024"),
        ("text=store #2", "store #2"),
        ("text=null", "null"),  # the field allows no absence, so the word is its text
        ("text='store #2'", "store #2"),
        ('text=" a "', " a "),
        ("text='q\".tif", "'q\".tif"),
        ("maybe=null", None),
        ("maybe=None", None),
        ("maybe=~", None),
        ("maybe=", None),
        ("maybe='null'", "null"),
        ("maybe=here", "here"),
        ("maybe=nothing", "nothing"),
        ("word=on", "on"),
        ("word=null", None),
        ("listed=[007, NO, 1e5, 2020-01-01, ~x, 'a, b']", ["007", "NO", "1e5", "2020-01-01", "~x", "a, b"]),
        ("each={P1: [007], 08: [on]}", {"P1": ["007"], "08": ["on"]}),
        ("each.07=[010]", {"07": ["010"]}),
        ("count=7", 7),
        ("share=1e-3", 0.001),
        ("share=0.5 # half", 0.5),
        ("either=2024", 2024),
        ("other={weights: 007, size: 3}", {"weights": "007", "size": 3}),
    ],
)
def test_an_override_and_a_file_give_a_field_its_value_by_its_type(tmp_path: Path, text: str, value: object) -> None:
    field, _, written = text.partition("=")
    found = TextStep.load(None, [f"texts.{text}"]).texts
    assert getattr(found, field.partition(".")[0]) == value
    if "." in field or not written or written.startswith(("'q", "store", "None")) or text == "text=null":
        return  # a file has other quotes and comments
    file = _file(tmp_path, f"texts:\n  {field}: {written}\n")
    assert getattr(TextStep.load(file).texts, field) == value


@pytest.mark.parametrize("text", ["2024", "007", "1e5", "on", "NO", "2020-01-01", "2024-13-01", "null"])
def test_a_file_gives_text_as_it_is_written(tmp_path: Path, text: str) -> None:
    file = _file(
        tmp_path, f"name: {text} # a remark\nrun: {{store: {text}}}\ntexts: {{listed: [{text}], text: {text}}}\n"
    )
    config = TextStep.load(file)
    assert (config.name, config.run.store, config.texts.listed, config.texts.text) == (text, text, [text], text)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("texts.count=010", r"--set 'texts.count=010': '010' is not a decimal number \(YAML reads 8\)"),
        ("texts.count=1_000", "'1_000' is not a decimal number"),
        ("texts.share=1:30", r"'1:30' is not a decimal number \(YAML reads 90\)"),
        ("texts.share=0x1", "'0x1' is not a decimal number"),
        (
            "texts.share=0,5",
            "texts.share: Input should be a valid number, unable to parse string as a number, got '0,5'",
        ),
        ("texts.text=", "texts.text: Input should be a valid string, got no value"),
        ("texts.listed=P1", r"texts.listed: Input should be a valid list, got 'P1'; write \[P1\]"),
        ("texts.listed=[a #1]", "the value is not YAML"),
        ("texts.count=2024-13-01", "a value cannot be read .*month must be in 1..12"),
        ("texts.other=[", "the value is not YAML"),
    ],
)
def test_a_value_with_two_meanings_is_refused(tmp_path: Path, override: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        TextStep.load(None, [override])
    key, _, value = override.partition("=")
    if value:
        with pytest.raises(ConfigError):
            TextStep.load(_file(tmp_path, f"texts:\n  {key.removeprefix('texts.')}: {value}\n"))


def test_the_order_of_overrides_does_not_matter_for_the_kind_of_work() -> None:
    cases = ["cases.table=c", "cases.case=007", "embeddings=e", "split.test=[010]", "model=attention"]
    for overrides in ([*cases, "targets=cases"], ["targets=cases", *cases]):
        config: Any = TrainConfig.load(None, overrides)
        assert (config.cases.case, config.split.test) == ("007", ["010"])


def test_a_file_with_a_byte_order_mark_is_read(tmp_path: Path) -> None:
    assert Toy.load(_file(tmp_path, "\ufefftiles: tile/a\r\nname: 2024\r\n")).name == "2024"


def test_values_of_another_config_are_read_by_its_types() -> None:
    pipeline = importlib.import_module("raystp.steps.pipeline.step").CONFIG
    config = pipeline.load(None, ["slides=s.csv", "train.name=2024", "train.split.test=[007]", "tile.spots=null"])
    assert (config.train, config.tile) == ({"name": "2024", "split": {"test": ["007"]}}, {"spots": None})
    config = pipeline.load(None, ["slides=s.csv", "train=[{targets: cases, cases: {case: 007}, split: {test: [NO]}}]"])
    assert config.train == [{"targets": "cases", "cases": {"case": "007"}, "split": {"test": ["NO"]}}]


def test_a_train_config_is_read_by_its_types_for_a_sweep_too(tmp_path: Path) -> None:
    tune = importlib.import_module("raystp.steps.tune.step").CONFIG
    file = _file(tmp_path, "spots: spots/a\nembeddings: embed/a\nname: 2024\nsplit: {test: [007], validation: [NO]}\n")
    space = "space={fit.lr: [loguniform, 0.1, 1]}"
    given = tune.load(None, [f"train={file}", space]).training()
    inline = tune.load(None, ["train={spots: spots/a, embeddings: embed/a, name: 2024, split: {test: [007]}}", space])
    assert (given.name, given.split.test, given.split.validation) == ("2024", ["007"], ["NO"])
    assert inline.training().split.test == ["007"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("-1", "tile_um: Input should be greater than 0, got -1"),
        ("x", "tile_um: Input should be a valid number, unable to parse string as a number, got 'x'"),
        ("[1, x]", "tile_um: Input should be a valid number, unable to parse string as a number, got 'x'"),
        ("[]", "tile_um: Tuple should have at least 1 item after validation, not 0, got []"),
    ],
)
def test_a_field_of_several_types_has_one_fault_under_its_own_name(text: str, expected: str) -> None:
    from raystp.steps.tile.config import TileConfig  # noqa: PLC0415 -- this test alone reads a step

    with pytest.raises(ConfigError) as caught:
        TileConfig.load(None, ["slides=a.csv", f"tile_um={text}"])
    assert str(caught.value).splitlines()[1:] == [f"  {expected}"]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            {"also": {"my-encoder": {"nam": "tiny"}}},
            "also.my-encoder.nam: there is no such field; did you mean 'name'?",
        ),
        ({"also": {"a-b": {"seed": "x"}}}, "also.a-b.seed: Input should be a valid integer, unable to parse string as"),
        ({"layers": ["mid-dle"]}, "layers.0: String should match pattern '^(last|middle|stage:"),
    ],
)
def test_a_fault_under_a_key_of_the_users_own_names_the_key_and_nothing_else(
    values: dict[str, object], message: str
) -> None:
    with pytest.raises(ConfigError) as found:
        EmbedConfig.of({"tiles": "tile/a", **values})
    assert f"\n  {message}" in str(found.value)
    assert str(found.value).count("\n") == 1
