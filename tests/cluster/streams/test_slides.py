"""The slide stream: plain tasks and Ray Data give the same receipts, and a crash is refused by name in both."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from raystp.cluster.streams import slides
from raystp.cluster.streams.slides import SlideReceipt, SlideResources, map_slides
from raystp.errors import SectionError

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("ray_session")]

CPUS = 0.1
MAX_ATTEMPTS = 3


@dataclass(frozen=True)
class Lengths:
    """A slide has as many rows as its name has letters."""

    folder: Path

    def begin(self, slide: str) -> str:
        attempts = list(self.folder.glob(f"{slide}.*"))
        (self.folder / f"{slide}.{len(attempts)}").touch()
        return f"{slide} crashed {MAX_ATTEMPTS} workers" if len(attempts) == MAX_ATTEMPTS else ""

    def end(self, slide: str) -> None:
        (self.folder / f"{slide}.0").unlink()

    def make_worker(self) -> Callable[[str], int]:
        def rows(slide: str) -> int:
            if slide == "broken":
                msg = "slide 'broken' has no embeddings"
                raise SectionError(msg)
            if slide == "deadly":
                os._exit(1)
            return len(slide)

        return rows


@pytest.mark.parametrize("way", ["plain tasks", "Ray Data"])
def test_a_slide_that_fails_is_a_receipt_and_the_others_are_done(
    way: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names, processes = ["a", "broken", "abc"], 2
    if way == "plain tasks":
        processes = len(names)
        monkeypatch.setattr(slides, "ray_data", None)  # it must not be used
    found = list(map_slides(Lengths(tmp_path), names, SlideResources(processes, CPUS)))
    failed = SlideReceipt("broken", 0, "slide 'broken' has no embeddings")
    assert sorted(found, key=str) == [SlideReceipt("a", 1, ""), SlideReceipt("abc", 3, ""), failed]
    assert not list(tmp_path.iterdir())


@pytest.mark.faults
@pytest.mark.parametrize("processes", [2, 1])
def test_a_slide_that_crashes_each_worker_is_refused(processes: int, tmp_path: Path) -> None:
    found = list(map_slides(Lengths(tmp_path), ["a", "deadly"], SlideResources(processes, CPUS)))
    refused = SlideReceipt("deadly", 0, "deadly crashed 3 workers")
    assert sorted(found, key=str) == [SlideReceipt("a", 1, ""), refused]


def test_no_slide_starts_nothing(tmp_path: Path) -> None:
    assert not list(map_slides(Lengths(tmp_path), [], SlideResources(1, CPUS)))
