"""The documentation: pages of the navigation exist, every link has its target, every module of the API is shown."""

import pkgutil
import re
from collections.abc import Iterator

import pytest
import yaml

import raystp.api
from tests.conftest import ROOT

PAGES = sorted(path.relative_to(ROOT / "docs").as_posix() for path in (ROOT / "docs").rglob("*.[mi][dp]*"))
"""Pages and notebooks."""
FILES = [*(f"docs/{page}" for page in PAGES), *sorted(path.name for path in ROOT.glob("*.md"))]


def _listed(nav: object) -> Iterator[str]:
    """Yield the pages of a navigation, in order."""
    if isinstance(nav, str):
        yield nav
    elif isinstance(nav, list):
        for one in nav:
            yield from _listed(one)
    elif isinstance(nav, dict):
        for one in nav.values():
            yield from _listed(one)


def test_the_navigation_has_existing_pages_once() -> None:
    listed = list(_listed(yaml.safe_load((ROOT / "mkdocs.yml").read_text())["nav"]))
    assert sorted(set(listed)) == sorted(listed)
    assert set(listed) <= set(PAGES)


@pytest.mark.parametrize("page", FILES)
def test_every_link_to_a_page_or_heading_has_its_target(page: str) -> None:
    own, broken = ROOT / page, []
    for target in re.findall(r"\]\(([^)\s]+)\)", own.read_text()):
        name, _, anchor = target.partition("#")
        if "://" in target:
            continue
        file = own.parent / name if name else own
        headings = re.findall(r"^#+ (.+)$", file.read_text(), re.MULTILINE) if anchor and file.is_file() else []
        slugs = {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
        if not file.is_file() or (anchor and anchor not in slugs):
            broken.append(target)
    assert broken == []


def test_the_reference_shows_every_module_of_the_api() -> None:
    shown = re.findall(r"^::: raystp\.api\.(\w+)$", (ROOT / "docs" / "api-reference.md").read_text(), re.MULTILINE)
    assert sorted(shown) == sorted(one.name for one in pkgutil.iter_modules(raystp.api.__path__))
