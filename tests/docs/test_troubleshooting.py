"""The page of errors: every class has its part, and every message on it is one that the code can raise."""

import ast
import re

import pytest

from raystp import errors
from tests.conftest import ROOT

PAGE = (ROOT / "docs" / "troubleshooting.md").read_text()
CLASSES = sorted(
    name
    for name, value in vars(errors).items()
    if isinstance(value, type) and issubclass(value, errors.RaystpError) and value is not errors.RaystpError
)
MESSAGES = [
    message
    for part in re.split(r"^## ", PAGE, flags=re.MULTILINE)
    if part.split("\n", 1)[0] in CLASSES
    for message in re.findall(r"^\| `([^`]+)` \|", part, re.MULTILINE)
]


@pytest.fixture(scope="module")
def texts() -> str:
    """All texts of the package: the constant parts of a message that is written in pieces are joined."""
    found = []
    for path in sorted((ROOT / "raystp").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.JoinedStr):
                found.append("".join(str(one.value) if isinstance(one, ast.Constant) else "\0" for one in node.values))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.append(node.value)
    return "\n".join(found)


def test_every_class_of_error_has_its_part() -> None:
    assert [name for name in CLASSES if f"\n## {name}\n" not in PAGE] == []


def test_every_class_has_a_message_or_a_way_out() -> None:
    parts = dict(part.split("\n", 1) for part in re.split(r"^## ", PAGE, flags=re.MULTILINE)[1:])
    assert [
        name for name in CLASSES if "| message |" not in parts[name] and "run the same command again" not in parts[name]
    ] == []


@pytest.mark.parametrize("message", MESSAGES)
def test_a_message_on_the_page_is_in_the_code(message: str, texts: str) -> None:
    pieces = [piece.strip(" ,:;.`'=") for piece in message.split("...")]
    assert [piece for piece in pieces if piece and piece not in texts] == []
