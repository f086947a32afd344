"""A kernel whose cached code is damaged is compiled again."""

from pathlib import Path

import numba
import numpy as np
import pytest
from numba import types

from raystp.compiled import compiled


def double(values: np.ndarray) -> None:
    """Double the values, in place."""
    for number in range(values.size):
        values[number] *= 2


@pytest.mark.parametrize("kept_bytes", [0, 40])
@pytest.mark.parametrize("ending", ["nbi", "nbc"])
def test_a_damaged_cached_file_is_compiled_again(
    ending: str, kept_bytes: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(numba.config, "CACHE_DIR", str(tmp_path))
    signature = types.void(types.Array(types.int64, 1, "C"))
    compiled(double, signature)
    files = [*tmp_path.rglob(f"*.{ending}")]
    assert files
    for file in files:
        file.write_bytes(file.read_bytes()[:kept_bytes])
    values = np.arange(3)
    compiled(double, signature)(values)
    assert values.tolist() == [0, 2, 4]
