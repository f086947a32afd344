"""Files of torch, numpy and json: nothing is unpickled, and sizes are checked before data are read."""

import io
import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from raystp.errors import FormatError
from raystp.interop.features.saved import read_npz, read_tensor
from raystp.storage import StoragePath
from raystp.storage.text_files import read_object


class _Spy:
    """Leaves a file where it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (self.mark,)


def test_a_tensor_keeps_its_precision(tmp_path: Path) -> None:
    path = tmp_path / "a.pt"
    for kind, expected in ((torch.float16, np.float16), (torch.float32, np.float32), (torch.bfloat16, np.float32)):
        torch.save(torch.ones(3, 2, dtype=kind), path)
        assert read_tensor(StoragePath.of(path)).dtype == expected
    torch.save(torch.ones(3, 2, requires_grad=True), path)  # features that were saved without `detach`
    assert read_tensor(StoragePath.of(path)).tolist() == [[1, 1]] * 3
    torch.save(torch.arange(6.0).reshape(2, 3).T, path)
    assert read_tensor(StoragePath.of(path)).tolist() == [[0, 3], [1, 4], [2, 5]]


def test_nothing_is_unpickled(tmp_path: Path) -> None:
    spy = _Spy(tmp_path / "mark")
    torch.save(spy, tmp_path / "a.pt")
    torch.save(np.ones((2, 2)), tmp_path / "b.pt")
    for name in ("a.pt", "b.pt"):
        with pytest.raises(FormatError, match="holds a pickled array or object, which raystp does not open"):
            read_tensor(StoragePath.of(tmp_path / name))
    np.savez(tmp_path / "c.npz", features=np.array([spy], dtype=object), allow_pickle=True)
    with pytest.raises(FormatError, match="is of type object, and only numbers are read: nothing is unpickled"):
        read_npz(StoragePath.of(tmp_path / "c.npz"), ["features"])
    assert not (tmp_path / "mark").exists()


@pytest.mark.parametrize(
    ("tensor", "message"),
    [
        (torch.zeros(1, 1).expand(10**9, 8), "declares 1,000,000,000 tiles, and a slide has at most"),
        (torch.zeros(1, 1).expand(10**6, 8), "declares a tensor of (1000000, 8) and stores fewer values"),
        (torch.zeros(2, 100_000), "holds a tensor of shape (2, 100000), expected tile x dim"),
        (torch.ones(2, 2, dtype=torch.complex64), "holds a tensor of torch.complex64, expected real numbers"),
        (torch.ones(2, 2).to(torch.float8_e5m2), "holds a tensor of torch.float8_e5m2, expected real numbers"),
        (torch.eye(3).to_sparse(), "holds a Tensor, expected one dense tensor of tile x dim"),
    ],
)
def test_a_tensor_larger_than_its_file_is_refused(tmp_path: Path, tensor: torch.Tensor, message: str) -> None:
    torch.save(tensor, tmp_path / "a.pt")
    with pytest.raises(FormatError) as raised:
        read_tensor(StoragePath.of(tmp_path / "a.pt"))
    assert message in str(raised.value)


def test_other_and_damaged_files_are_no_tensors(tmp_path: Path) -> None:
    path = tmp_path / "a.pt"
    path.write_bytes(b"not a tensor")
    with pytest.raises(FormatError, match=r"is no tensor as torch 1\.6 and later save it"):
        read_tensor(StoragePath.of(path))
    torch.save(torch.ones(2, 2), path)
    with zipfile.ZipFile(path) as archive, zipfile.ZipFile(tmp_path / "b.pt", "w", zipfile.ZIP_DEFLATED) as packed:
        for name in archive.namelist():
            packed.writestr(name, archive.read(name))
    with pytest.raises(FormatError, match="is a compressed archive, and torch writes none"):
        read_tensor(StoragePath.of(tmp_path / "b.pt"))
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/version", "3")
    with pytest.raises(FormatError, match="is not readable by torch"):
        read_tensor(StoragePath.of(path))


def test_an_array_larger_than_its_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    for shape, message in (((10**9, 2), "declares 1,000,000,000 tiles"), ((10**7, 1000), "damaged or hostile")):
        header = io.BytesIO()
        np.lib.format.write_array_header_1_0(header, {"descr": "<f4", "fortran_order": False, "shape": shape})
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("features.npy", header.getvalue())
        with pytest.raises(FormatError, match=message):
            read_npz(StoragePath.of(path), ["features"])
    np.savez(path, x=np.arange(3))
    with pytest.raises(FormatError, match="has no array 'features'; it has 'x'"):
        read_npz(StoragePath.of(path), ["features"])
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(FormatError, match="is not a readable npz file"):
        read_npz(StoragePath.of(path), ["x"])


def test_a_description_is_a_small_object(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    for text, message in (("[1]", "holds a JSON list, expected an object"), ("{", "is not readable JSON")):
        path.write_text(text)
        with pytest.raises(FormatError, match=message):
            read_object(StoragePath.of(path), 16 << 20, FormatError)
    path.write_text(json.dumps({"a": "x" * (17 << 20)}))
    with pytest.raises(FormatError, match="16,777,216 are expected at most; it was not read"):
        read_object(StoragePath.of(path), 16 << 20, FormatError)
