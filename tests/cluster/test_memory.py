"""A process that keeps freed memory gets no pages from the kernel for arrays of the same size."""

import ctypes
import subprocess
import sys
from types import SimpleNamespace

import pytest

from raystp.cluster import memory

ARRAYS = """
import resource, sys
import numpy as np
from raystp.cluster.memory import keep_freed_memory
kept = keep_freed_memory() if sys.argv[1] == "keep" else None
def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    arrays = [np.ones(1_000_000, np.float32) for _ in range(4)]
    del arrays
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
found = [faults() for _ in range(4)]
print(kept, found[-1])
"""


def _run(word: str) -> tuple[str, int]:
    command = [sys.executable, "-c", ARRAYS, word]
    kept, faults = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    return kept, int(faults)


def test_arrays_of_the_same_size_get_the_memory_of_the_freed_ones() -> None:
    kept, faults = _run("keep")
    if kept == "False":
        pytest.skip("this C library has no mallopt")
    assert faults < 100  # of 3,900 pages
    assert _run("default")[1] > 1000


def test_a_library_that_refuses_a_large_threshold_gets_the_largest_documented_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    settings: dict[int, int] = {}

    def mallopt(parameter: int, value: int) -> int:
        if parameter == memory.MMAP_THRESHOLD and value > memory.DOCUMENTED_BYTES:
            return 0
        settings[parameter] = value
        return 1

    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(ctypes, "CDLL", lambda _: SimpleNamespace(mallopt=mallopt))
    assert memory.keep_freed_memory()
    assert settings == {
        memory.TRIM_THRESHOLD: memory.KEPT_BYTES,
        memory.MMAP_THRESHOLD: memory.DOCUMENTED_BYTES,
    }
