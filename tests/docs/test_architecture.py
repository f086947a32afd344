"""The worked examples of the architecture page: each part runs from top to bottom, and its assertions hold."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from raystp.expression.readers.registry import LAYOUTS
from raystp.models.methods import METHODS
from tests.conftest import ROOT

PAGE = (ROOT / "docs" / "architecture.md").read_text()
PARTS = {part.split("\n", 1)[0]: part for part in re.split(r"^## ", PAGE, flags=re.MULTILINE)[1:]}
BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
FILE = re.compile(r"# (\w+\.py)\n")


@pytest.fixture(autouse=True)
def _registries(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Work in an empty folder from which modules are imported; take back what an example registers."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    registries: list[dict[str, Any]] = [METHODS, LAYOUTS]
    before = [dict(one) for one in registries]
    yield
    for one, kept in zip(registries, before, strict=True):
        one.clear()
        one.update(kept)


@pytest.mark.parametrize("part", PARTS)
def test_the_examples_of_a_part_run(part: str) -> None:
    blocks = BLOCK.findall(PARTS[part])
    assert blocks
    assert "assert " in blocks[-1]
    names: dict[str, Any] = {"__name__": "example"}
    for block in blocks:
        if file := FILE.match(block):
            Path(file[1]).write_text(block)
        else:
            exec(compile(block, f"docs/architecture.md: {part}", "exec"), names)


def test_every_kind_of_addition_has_a_part() -> None:
    assert list(PARTS) == ["Add an encoder", "Add a layout", "Add a format of slides", "Add a method", "Add a metric"]
