"""Targets: every reader of other tools' files (`raystp import`), and what `raystp inspect` says of a file."""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from raystp.interop.choice import FolderChoice, TableChoice
from raystp.interop.registry import FEATURES, TABLES
from raystp.interop.sections.tables import TableFiles
from raystp.steps.inspect.step import inspect_item
from raystp.storage import StoragePath
from tests.interop.features.lazyslide_maker import LazySlide
from tests.interop.features.makers import VECTORS, AtlasPatch, Clam, Slide2vec, Stamp
from tests.interop.features.trident_maker import Maker
from tests.interop.sections.foreign import bench_folder, hest_folder, stimage_folder
from tests.interop.sections.test_her2st import her2st_folder
from tests.interop.sections.test_hest_embeddings import hest_embeddings
from tests.security.fuzz.changes import change_file, change_zip
from tests.security.fuzz.target import Target, of_file, of_folder, scratch
from tests.test_text_fuzz import mutated

MAKERS: dict[str, Callable[[Path], object]] = {
    "trident": lambda folder: Maker(folder).write(),
    "clam": lambda folder: Clam(folder).write(),
    "clam pt": lambda folder: Clam(folder, h5=False, pt=_tensor()).write(),
    "stamp": lambda folder: Stamp(folder).write(),
    "slide2vec": lambda folder: Slide2vec(folder).write(),
    "slide2vec npz": lambda folder: Slide2vec(folder, index=np.arange(6)).write(),
    "atlaspatch": lambda folder: AtlasPatch(folder).write(),
    "lazyslide 3": lambda folder: LazySlide(folder).write(),
    "lazyslide 2": lambda folder: LazySlide(folder, zarr_format=2).write(),
    "hest-embeddings": lambda folder: hest_embeddings(folder / "uni_v1"),
}
FOLDERS: dict[str, Callable[[Path], object]] = {
    "hest": hest_folder,
    "hest-bench": lambda folder: bench_folder(folder, [(["A1", "A2"], ["B1"]), (["B1"], ["A1", "A2"])]),
    "her2st": lambda folder: her2st_folder(folder, ["A1", "A2", "B1"]),
    "stimage": stimage_folder,
}


def _tensor() -> object:
    import torch  # noqa: PLC0415 -- it takes seconds, and one target needs it

    return torch.from_numpy(VECTORS)


def _features(name: str) -> Callable[[Path], object]:
    form = FEATURES[name.partition(" ")[0]]
    choice = FolderChoice(encoder="uni_v2" if form.name == "atlaspatch" else None)

    def read(folder: Path) -> object:
        place = StoragePath.of(folder / "uni_v1" if form.name == "hest-embeddings" else folder)
        return [form.read(one, choice, 0.25) for one in form.find(place, choice).slides]

    return read


def _tables(name: str) -> Callable[[Path], TableFiles]:
    return lambda folder: TABLES[name].table_files(StoragePath.of(folder), TableChoice())


def _change_table(file: Path, content: bytes, rng: np.random.Generator) -> None:
    if file.suffix in {".csv", ".tsv"} and rng.random() < 0.7:
        file.write_bytes(mutated(content, rng))
    else:
        change_file(file, content, rng)


def _inspect(file: Path) -> object:
    return inspect_item(str(file), str(file.parent))


def _weights() -> list[bytes]:
    with scratch() as folder:
        Slide2vec(folder).write()
        return [(folder / "tile_embeddings" / "S1.pt").read_bytes()]


TARGETS = (
    *(
        Target(f"import {name}", "other tools' files", of_folder(write, change_file, _features(name)))
        for name, write in MAKERS.items()
    ),
    *(
        Target(f"tables {name}", "other tools' files", of_folder(write, _change_table, _tables(name)))
        for name, write in FOLDERS.items()
    ),
    Target("inspect w.pt", "other tools' files", of_file("w.pt", _weights, change_zip, _inspect)),
)
