"""What the pages state is what the code has: encoders, stored tables, artifacts, methods, controls, layers."""

import re
import tomllib
from dataclasses import fields
from typing import get_type_hints

import pyarrow as pa
import pytest

from raystp import tables
from raystp.artifacts import SCHEMA_VERSION, Manifest
from raystp.cli.arguments import keys_of
from raystp.cli.commands import CHORES, STEPS, config_of
from raystp.encoders.catalogue import catalogue
from raystp.evaluate import tables as evaluation
from raystp.index.description import IndexDescription
from raystp.index.reference import ROWS
from raystp.models.methods import METHODS
from raystp.steps.evaluate.cases import controls as cases
from raystp.steps.evaluate.spots import controls as spots
from tests.conftest import ROOT

FORMAT = (ROOT / "docs" / "file-format.md").read_text()
MADE = [
    *(value for module in (tables, evaluation) for value in vars(module).values() if isinstance(value, pa.Schema)),
    tables.embeddings(2),
    tables.tokens(2),
    tables.queries(2),
    tables.predictions(2),
    tables.neighbours(2),
    ROWS,
]


PAGES = [ROOT / "README.md", ROOT / "AGENTS.md", *sorted((ROOT / "docs").glob("*.md"))]
FIELD = re.compile(r"`([a-z]\w*(?:\.[a-z]\w*)+)(?:[:=][^`]*)?`")
"""A dotted name in a page, with or without a value."""
NO_FIELD = re.compile(
    r"(?:notes|raystp|rs|result)\.\w+"  # keys of manifests and tables, and names of Python
    r"|.*\.(?:py|csv|txt|md|yaml|json|html|png|conf|db|parquet|safetensors|npy|h5|qpproj|xenium)"
    r"|without\.section"  # a column of the index, which the user chooses
)


def _name(schema: pa.Schema) -> str:
    return str(schema.metadata[tables.NAME].decode())


def _row(page: str, first: str) -> str:
    """Return the row of a table of a page whose first cell starts with a text."""
    (found,) = re.findall(rf"^\| {re.escape(first)}(?: \([^|]*\))? \|.*$", page, re.MULTILINE)
    return str(found)


@pytest.mark.parametrize("schema", MADE, ids=_name)
def test_every_stored_table_is_described_with_its_columns(schema: pa.Schema) -> None:
    row = _row(FORMAT, _name(schema))
    own = [name for name in schema.names if name not in tables.TILES.names or schema is tables.TILES]
    own = schema.names if "the columns of tiles" not in row else own
    assert [name for name in own if f"`{name}`" not in row] == []
    assert schema.metadata[tables.VERSION] == b"1"


def test_every_key_of_the_manifest_and_of_an_index_is_described() -> None:
    assert [one.name for one in fields(Manifest) if f"`{one.name}`" not in FORMAT] == []
    assert [key for key in get_type_hints(IndexDescription) if f"`{key}`" not in FORMAT] == []
    assert f"| `schema_version` | {SCHEMA_VERSION} |" in FORMAT


def test_the_table_of_encoders_is_that_of_the_cards() -> None:
    page = (ROOT / "docs" / "encoders.md").read_text()
    for one in catalogue():
        mpp = ", ".join(f"{value:g}" for value in one["um_per_px"]) or "-"
        gate = "yes" if one["gate"] else "no"
        start = f"| `{one['name']}` | {one['dim']} | {mpp} | {one['px']} | {one['licence'] or '-'} | {gate} | "
        assert start in page
        hub = re.search(r"hub ([^/]+/[^/]+)/", one["weights"])
        assert f"{start}{hub[1] if hub else '-'} |" in page


def test_every_method_is_described() -> None:
    page = (ROOT / "docs" / "methods.md").read_text()
    assert [name for name in METHODS if f"| `{name}` |" not in page] == []


def test_the_artifact_of_every_step_is_described() -> None:
    assert [step for step in STEPS if f"\n| `{step}` | " not in FORMAT] == ["serve"]  # it writes none


def test_every_control_of_an_evaluation_is_named() -> None:
    page = (ROOT / "docs" / "protocols.md").read_text()
    names = {spots.LOG_TOTAL, spots.SECTION_MEAN, *cases.NOTES}
    assert [name for name in sorted(names) if f"`{name}`" not in page] == []


def test_every_package_of_the_layers_is_described() -> None:
    page = (ROOT / "CONTRIBUTING.md").read_text()
    layers = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"][0]["layers"]
    packages = [name for layer in layers for name in layer.split(" | ")]
    assert [name for name in packages if f"`{name}/`" not in page and f"`{name}.py`" not in page] == []


def test_every_dotted_field_on_the_pages_is_one_of_a_config() -> None:
    of_step = {step: keys_of(step, config_of(step)) for step in (*STEPS, *CHORES)}
    fields = {name for step, keys in of_step.items() for key in keys for name in (key, f"{step}.{key}")}
    parts = {field.rpartition(".")[0] for field in fields}
    named = {(page.name, name) for page in PAGES for name in FIELD.findall(page.read_text())}
    assert ("methods.md", "fit.encoder_lr") in named
    assert sorted(one for one in named if one[1] not in fields | parts and not NO_FIELD.fullmatch(one[1])) == []
