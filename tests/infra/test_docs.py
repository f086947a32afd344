"""The documentation: pages of the navigation exist, every link has its target, every module of the API is shown."""

import os
import pkgutil
import re
import subprocess
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path

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


def test_the_changelog_begins_with_this_version_and_its_date() -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    headings = re.findall(r"^## (.+)$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    newest = next(heading for heading in headings if heading != "Unreleased")
    assert re.fullmatch(rf"{re.escape(version)} - \d{{4}}-\d\d-\d\d", newest)


def test_the_readme_is_short() -> None:
    assert (ROOT / "README.md").stat().st_size <= 10_240


@pytest.mark.faults
def test_the_site_builds_without_a_warning(tool: Callable[[str], str], tmp_path: Path) -> None:
    command = [tool("mkdocs"), "build", "--strict", "--site-dir", str(tmp_path / "site")]
    variables = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=ROOT, env=variables, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "site" / "api-reference" / "index.html").is_file()
