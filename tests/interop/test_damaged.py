"""Any damaged byte of another tool's files is one sentence, or is no fault; never another exception.

HDF5 files are not among the random ones: the HDF5 library loops forever on some damaged heaps, which only the deadline
of a worker ends.
"""

from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from raystp.errors import FormatError, RaystpError
from raystp.interop.choice import FolderChoice
from raystp.interop.registry import FEATURES
from raystp.storage import StoragePath
from tests.interop.features.lazyslide_maker import LazySlide
from tests.interop.features.makers import AtlasPatch, Clam, Slide2vec, Stamp
from tests.interop.features.trident_maker import Maker

MAKERS: Mapping[str, Callable[[Path], Path]] = {
    "slide2vec": lambda folder: Slide2vec(folder).write(),
    "slide2vec npz": lambda folder: Slide2vec(folder, index=np.arange(6)).write(),
    "lazyslide": lambda folder: LazySlide(folder).write(),
    "lazyslide 2": lambda folder: LazySlide(folder, zarr_format=2).write(),
}
VALUES = (b"-1", b"null", b"99999999999", b'"x"', b"{}", b"[]")


def _damaged(content: bytes, rng: np.random.Generator) -> bytes:
    """Return a file cut, with a few other bytes, or with another value in place of a digit."""
    damaged = bytearray(content)
    kind = rng.integers(3)
    if kind == 0:
        return content[: rng.integers(len(content) + 1)]
    if kind == 1 and content:
        for place in rng.integers(len(content), size=4):
            damaged[place] = rng.integers(256)
    digits = [place for place, one in enumerate(content[:4096]) if chr(one).isdigit()]
    if kind == 2 and digits:
        place = digits[rng.integers(len(digits))]
        damaged[place : place + 1] = VALUES[rng.integers(len(VALUES))]
    return bytes(damaged)


@pytest.mark.parametrize("name", list(MAKERS))
def test_damaged_bytes_are_a_sentence_or_no_fault(tmp_path: Path, name: str) -> None:
    MAKERS[name](tmp_path)
    files = sorted(one for one in tmp_path.rglob("*") if one.is_file())
    form, rng = FEATURES[name.partition(" ")[0]], np.random.default_rng(3)
    for _ in range(40):
        file = files[rng.integers(len(files))]
        content = file.read_bytes()
        file.write_bytes(_damaged(content, rng))
        with suppress(RaystpError):
            for slide in form.find(StoragePath.of(tmp_path), FolderChoice()).slides:
                form.read(slide, FolderChoice(), 0.25)
        file.write_bytes(content)


COHORTS: Mapping[str, Callable[..., Any]] = {
    "trident": Maker,
    "clam": Clam,
    "stamp": Stamp,
    "slide2vec": Slide2vec,
    "atlaspatch": AtlasPatch,
    "lazyslide": LazySlide,
}


@pytest.mark.parametrize("name", list(COHORTS))
def test_a_damaged_slide_does_not_end_the_others_even_as_the_first(tmp_path: Path, name: str) -> None:
    for slide in ("S1", "S2"):
        COHORTS[name](tmp_path, slide=slide).write()
    for file in tmp_path.rglob("*"):
        of_store = name == "lazyslide" and file.parent.name == "S1.zarr"
        if file.is_file() and (of_store or (name != "lazyslide" and file.name.startswith("S1."))):
            file.write_bytes(b"damaged")
    form, choice = FEATURES[name], FolderChoice(encoder="uni_v2" if name == "atlaspatch" else None)
    first, second = form.find(StoragePath.of(tmp_path), choice).slides
    with pytest.raises(FormatError, match="S1"):
        form.read(first, choice, 0.25)
    assert len(form.read(second, choice, 0.25).boxes) == 6
