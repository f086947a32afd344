"""The example in the docstring of each public name, run on the smoke demo's cohort and its artifacts."""

import doctest
import inspect
from pathlib import Path

import pytest

import raystp as rs
from raystp.artifacts import resolve

NAMES = [name for name in rs.__all__ if name != "__version__"]

pytestmark = pytest.mark.ray


@pytest.mark.parametrize("name", NAMES)
def test_the_example_gives_what_it_shows(name: str, smoke_store: Path, tmp_path: Path) -> None:
    cohort = resolve(str(smoke_store), "demo/smoke", "demo").path.local_path
    slides = tmp_path / "slides.csv"
    slides.write_text(f"slide,path,patient\nunmeasured,{cohort}/slides/unmeasured.svs,X\n")
    given = {"rs": rs, "cohort": cohort, "store": str(smoke_store), "slides": slides}
    text = inspect.getdoc(getattr(rs, name)) or ""
    example = doctest.DocTestParser().get_doctest(text, given, name, None, 0)
    printed: list[str] = []
    doctest.DocTestRunner(optionflags=doctest.ELLIPSIS).run(example, out=printed.append)
    assert printed == []
