"""Folders of other tools in an object store are read as on this machine, and written there."""

from pathlib import Path

import numpy as np
import pytest

from raystp.interop.choice import FolderChoice
from raystp.interop.outputs.registry import PREDICTIONS, write_slide
from raystp.interop.outputs.slide import OutputOptions
from raystp.interop.registry import FEATURES
from raystp.storage import StoragePath
from tests.interop.features.lazyslide_maker import LazySlide
from tests.interop.features.makers import VECTORS, AtlasPatch, Clam, Slide2vec, Stamp
from tests.interop.features.trident_maker import Maker
from tests.interop.outputs.toy import toy_slide
from tests.storage.conftest import bucket, server, store_port

__all__ = ["bucket", "server", "store_port"]

MAKERS = {
    "trident": Maker,
    "clam": Clam,
    "stamp": Stamp,
    "slide2vec": Slide2vec,
    "atlaspatch": AtlasPatch,
    "lazyslide": LazySlide,
}


def _upload(folder: Path, target: StoragePath) -> StoragePath:
    for file in folder.rglob("*"):
        if file.is_file():
            (target / file.relative_to(folder).as_posix()).write_bytes(file.read_bytes())
    return target


OFTEN = ("stamp", "lazyslide")
"""Files are read in one way, and stores of many files in another; the other formats are left to the long tests."""


@pytest.mark.parametrize(
    "name", [pytest.param(one, marks=[] if one in OFTEN else pytest.mark.faults) for one in MAKERS]
)
def test_a_folder_in_a_bucket_is_read_as_on_this_machine(name: str, bucket: StoragePath, tmp_path: Path) -> None:
    MAKERS[name](tmp_path).write()
    form, choice = FEATURES[name], FolderChoice(encoder="uni_v2") if name == "atlaspatch" else FolderChoice()
    read = []
    for folder in (StoragePath.of(tmp_path), _upload(tmp_path, bucket)):
        (files,) = form.find(folder, choice).slides
        read.append(form.read(files, choice, 0.25))
    here, there = read
    np.testing.assert_array_equal(there.boxes, here.boxes)
    np.testing.assert_array_equal(there.vectors, here.vectors)
    assert (there.mpp, there.size, there.encoder, there.attributes) == (
        here.mpp,
        here.size,
        here.encoder,
        here.attributes,
    )
    if form.writes and here.tile_px:
        form.write(here, bucket / "out")
        (files,) = form.find(bucket / "out", choice).slides
        again = form.read(files, choice, 0.25)
        np.testing.assert_array_equal(again.boxes, here.boxes)
        np.testing.assert_array_equal(np.sort(again.vectors, axis=0), VECTORS.astype(again.vectors.dtype))


@pytest.mark.parametrize(
    "form", [pytest.param(one, marks=[] if one == "omezarr" else pytest.mark.faults) for one in PREDICTIONS]
)
def test_a_prediction_in_a_bucket_has_the_bytes_of_one_on_this_machine(
    form: str, bucket: StoragePath, tmp_path: Path
) -> None:
    here = StoragePath.of(tmp_path)
    for folder in (here, bucket / "out", bucket / "out"):  # the second time in place of the first
        write_slide(form, toy_slide(), folder, OutputOptions())
    assert (bucket / "out").files() == here.files()
    for name in here.files():
        assert (bucket / "out" / name).read_bytes() == (here / name).read_bytes()
