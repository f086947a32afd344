"""Exceptions of the machine and of Ray are sentences with the next step."""

import pytest
from ray.exceptions import OutOfDiskError, RayTaskError

from raystp.cluster.environment import explain


def _from_worker(error: Exception) -> Exception:
    """Return an error as Ray raises it in the driver."""
    wrapped = RayTaskError("submit", "traceback of the worker", error, pid=1)  # type: ignore[no-untyped-call]  # untyped in Ray
    raised: Exception = wrapped.as_instanceof_cause()  # type: ignore[no-untyped-call]  # the same
    return raised


def test_a_full_spill_disk_is_named_with_its_folder_and_the_field_that_needs_none(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("RAY_TMPDIR", "/scratch/me")
    full = OutOfDiskError("Local disk is full")
    for error in (_from_worker(full), full):
        sentence = explain(error)
        assert sentence is not None
        assert sentence.startswith("the object store of a Ray node is full, and so is the disk that it spills to")
        assert "(/scratch/me/ray, unless the cluster sets object_spilling_directory)" in sentence
        assert "run.readers=0" in sentence
        assert "Local disk" not in sentence


def test_another_error_of_ray_is_one_line_and_an_error_of_code_has_no_sentence() -> None:
    assert explain(_from_worker(KeyError("x"))) is None
    assert "\n" not in str(explain(OutOfDiskError("x\ny")))
