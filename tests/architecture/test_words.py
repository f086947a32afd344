"""One class name has one meaning, and product text uses no phrase that readers found hard."""

import ast
import re
from collections import defaultdict
from pathlib import Path

from tests.conftest import ROOT

PHRASES = (
    r"would do\b",
    r"\bas it seems\b",
    r"\bfor want of\b",
    r"\baffair of\b",
    r"\b(?:has|have) ended\b",
    r"\b(?:is|are) told\b",
    r"\bis said of\b",
    r"\bbegun again\b",
    r"\bno picture but\b",
    r"\bin goes?\b",
    r"\bknock(?:s|ed)?\b",
    r"\bshel(?:f|ves)\b",
    r"\bthe bill\b",
    r"\b(?:the|at the|front) door\b",
    r"\bset aside\b|\bsets aside\b|\bwritten aside\b",
    r"\bthe house\b",
    r"\bwho is who\b",
    r"\bbanks?\b",
    r"\bnobody\b",
    r"\bhow wide\b",
    r"\bhear[sd]?\b",
)
"""Metaphors, idioms and inversions that readers found hard; see the rules of plain English in CONTRIBUTING.md."""

MODULES = sorted((ROOT / "raystp").rglob("*.py"))


def test_one_class_name_has_one_meaning() -> None:
    places = defaultdict(list)
    for path in MODULES:
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.ClassDef):
                places[node.name].append(path.relative_to(ROOT).as_posix())
    assert {name: where for name, where in places.items() if len(where) > 1} == {}


def _texts(path: Path) -> list[tuple[int, str]]:
    """Return line and text of each docstring, comment and message of a file; a single word is a key, not prose."""
    text = path.read_text()
    if path.suffix != ".py":
        return list(enumerate(text.splitlines(), 1))
    found = [
        (node.lineno, node.value)
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and " " in node.value.strip()
    ]
    return found + [(number, line) for number, line in enumerate(text.splitlines(), 1) if re.match(r"\s*#|.*  #", line)]


def test_product_text_is_plain() -> None:
    files = [
        *MODULES,
        *sorted((ROOT / "jobs").glob("*.py")),
        *sorted((ROOT / "conf").rglob("*.yaml")),
        ROOT / "README.md",
        ROOT / "CONTRIBUTING.md",
        *sorted((ROOT / "docs").glob("*.md")),
        ROOT / "infra" / "benchmarks" / "README.md",
    ]
    pattern = re.compile("|".join(PHRASES), re.IGNORECASE)
    found = [
        f"{path.relative_to(ROOT).as_posix()}:{line}: {match[0]!r}"
        for path in files
        for line, text in _texts(path)
        for match in pattern.finditer(re.sub(r"`[^`]*`", "", text))
    ]
    assert found == []
