"""The public names: they are what the API defines, they are described, and importing the package costs nothing."""

import inspect
import json
import pkgutil
import subprocess
import sys
from importlib import import_module

import pytest

import raystp as rs
import raystp.api
from tests.conftest import ROOT

NAMES = [name for name in rs.__all__ if name != "__version__"]


def test_all_is_sorted_and_every_name_is_there() -> None:
    assert list(rs.__all__) == sorted(rs.__all__, key=lambda name: (not name[0].isupper(), name[0] != "_", name))
    assert all(hasattr(rs, name) for name in rs.__all__)
    assert set(rs.__all__) <= set(dir(rs))


def test_all_is_every_public_name_that_the_api_defines() -> None:
    defined = set()
    for one in pkgutil.iter_modules(raystp.api.__path__):
        module = import_module(f"raystp.api.{one.name}")
        found = inspect.getmembers(module, lambda value: inspect.isfunction(value) or inspect.isclass(value))
        defined |= {name for name, value in found if value.__module__ == module.__name__ and name[0] != "_"}
    assert defined == set(NAMES)


def test_no_name_hides_a_package() -> None:
    """`rs.index` is a package, so the function is `rs.build_index`."""
    packages = {one.name for one in pkgutil.iter_modules(rs.__path__)}
    assert packages & set(rs.__all__) == set()


@pytest.mark.parametrize("name", NAMES)
def test_every_name_has_units_or_errors_and_an_example(name: str) -> None:
    text = inspect.getdoc(getattr(rs, name)) or ""
    assert ">>> " in text
    assert "Raises:" in text or inspect.isclass(getattr(rs, name))


def test_an_unknown_name_is_an_attribute_error_that_lists_the_known_ones() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'tiles'; it has StepResult, __version__, build_index"):
        _ = rs.tiles  # type: ignore[attr-defined]


def test_the_import_loads_no_other_package_and_takes_milliseconds() -> None:
    code = (
        "import sys, time, json; before = set(sys.modules); start = time.process_time(); import raystp; "
        "print(json.dumps([sorted(set(sys.modules) - before), time.process_time() - start]))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    loaded, seconds = json.loads(done.stdout)
    assert {name for name in loaded if name.partition(".")[0] not in sys.stdlib_module_names} == {"raystp"}
    assert seconds < 0.05
