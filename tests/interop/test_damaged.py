"""Any damaged byte of another tool's files is one sentence, or is no fault; never another exception.

HDF5 files are not among them: the HDF5 library loops forever on some damaged heaps, which only the deadline of a worker
ends.
"""

from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

from raystp.errors import RaystpError
from raystp.interop.choice import FolderChoice
from raystp.interop.registry import FEATURES
from raystp.storage import StoragePath
from tests.interop.features.lazyslide_maker import LazySlide
from tests.interop.features.makers import Slide2vec

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
