from pathlib import Path

import h5py
import numpy as np
import pytest

from raystp.errors import SectionError, SlideError
from raystp.hdf5 import checked_hdf5
from raystp.storage import StoragePath


def _check(path: Path) -> None:
    with checked_hdf5(StoragePath.of(path), SectionError) as local:
        assert local == path


def test_numbers_strings_and_second_names_pass(tmp_path: Path) -> None:
    path = tmp_path / "good.h5"
    with h5py.File(path, "w") as file:
        group = file.create_group("group")
        group["numbers"] = np.arange(6).reshape(2, 3)
        group["strings"] = ["a", "bc"]
        group["again"] = group["numbers"]
        group["itself"] = group
        file["nothing"] = h5py.Empty("f4")
        file["record"] = np.zeros(2, dtype=[("a", "f4"), ("b", "S3")])
    _check(path)


def test_a_declared_size_beyond_the_file_is_refused_before_reading(tmp_path: Path) -> None:
    path = tmp_path / "bomb.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset("X", shape=(1 << 20, 1 << 20), dtype="f4", chunks=(1024, 1024), compression="gzip")
    with pytest.raises(SectionError, match=r"declares 4398046511104 bytes .* it was not read"):
        _check(path)


def test_a_chunk_beyond_the_memory_for_one_is_refused_before_reading(tmp_path: Path) -> None:
    path = tmp_path / "chunk.h5"
    with h5py.File(path, "w") as file:
        options = {"maxshape": (None, 4), "chunks": (1 << 27, 4), "compression": "gzip"}
        file.create_dataset("X", shape=(6, 4), dtype="f4", **options)
    with pytest.raises(SectionError, match=r"'/X' in chunks of 2147483648 bytes, beyond the limit of 1073741824"):
        _check(path)


def test_links_to_other_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "link.h5"
    with h5py.File(path, "w") as file:
        file["X"] = h5py.ExternalLink("/etc/other.h5", "/X")
    with pytest.raises(SectionError, match=r"links to another file at '/X' \(/etc/other.h5\)"):
        _check(path)


def test_a_soft_link_through_another_file_is_refused_before_it_is_followed(tmp_path: Path) -> None:
    path = tmp_path / "soft.h5"
    with h5py.File(path, "w") as file:
        file["a"] = h5py.SoftLink("/z/X")
        file["z"] = h5py.ExternalLink("/etc/other.h5", "/")
    with pytest.raises(SectionError, match=r"links to another file at '/z' \(/etc/other.h5\)"):
        _check(path)


def test_the_caller_gives_the_class_of_the_error(tmp_path: Path) -> None:
    (tmp_path / "text.h5").write_text("no HDF5")
    with (
        pytest.raises(SlideError, match=r"text\.h5 is not a readable HDF5 file: OSError"),
        checked_hdf5(StoragePath.of(tmp_path / "text.h5"), SlideError),
    ):
        pass


def test_data_stored_in_other_files_is_refused(tmp_path: Path) -> None:
    (tmp_path / "raw.bin").write_bytes(bytes(80))
    with h5py.File(tmp_path / "external.h5", "w") as file:
        file.create_dataset("X", shape=(10,), dtype="f8", external=[(str(tmp_path / "raw.bin"), 0, 80)])
    with pytest.raises(SectionError, match="stores '/X' in other files"):
        _check(tmp_path / "external.h5")


def test_objects_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "objects.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset("ragged", shape=(2,), dtype=h5py.vlen_dtype(np.int32))
    with pytest.raises(SectionError, match="holds objects at '/ragged'"):
        _check(path)
