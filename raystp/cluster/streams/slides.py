"""Slides -> whatever is made of each, on Ray Data: the stream's row is a slide, done by one process from end to end.

For work that reads no pixels and needs a slide as a whole. What is done with a slide is passed in as a `SlideWork`. A
slide that fails with a sentence becomes a receipt with that sentence; one whose process ends is begun again by Ray,
as often as `storage.attempts` lets it be, and the work refuses it in the end.
"""

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
import ray
import ray.data

from raystp.errors import RaystpError


@runtime_checkable
class SlideWork(Protocol):
    """What is done with each slide of a cohort; it is sent to every process once."""

    def begin(self, slide: str) -> str:
        """Leave a mark; return a sentence where this slide has ended too many processes."""

    def ended(self, slide: str) -> None:
        """Take the mark away."""

    def worker(self) -> Callable[[str], int]:
        """Open, once per process, all that is needed; return what does a slide and gives its rows."""


@dataclass(frozen=True)
class SlideReceipt:
    """What became of a slide: its rows, or the sentence of its failure."""

    slide: str
    rows: int
    error: str


@dataclass(frozen=True)
class SlideResources:
    """How many processes share the slides, and what each holds."""

    processes: int
    cpus: float = 1.0
    gpus: float = 0.0


def map_slides(work: SlideWork, slides: list[str], width: SlideResources) -> Iterator[SlideReceipt]:
    """Do every slide and yield its receipt as it is done, in no particular order."""
    if not slides:
        return
    source = ray.data.from_items([{"slide": slide} for slide in slides], override_num_blocks=len(slides))
    # Tasks rather than actors: Ray keeps their processes for what comes next, with all that these have imported.
    do: Any = _do  # Ray's types know of no further arguments
    plan = source.map_batches(
        do,
        fn_args=(ray.put(work),),
        batch_size=1,
        concurrency=min(width.processes, len(slides)),
        num_cpus=width.cpus,
        num_gpus=width.gpus,
    )
    for row in plan.iter_rows():
        yield SlideReceipt(**row)


_OPEN: dict[bytes, tuple[SlideWork, Callable[[str], int]]] = {}
"""What this process has open: the work that it did last, by its reference."""


def _do(batch: dict[str, np.ndarray], reference: "ray.ObjectRef[SlideWork]") -> dict[str, list[Any]]:
    """Turn a batch of one slide into its receipt."""
    slide, work = str(batch["slide"][0]), ray.get(reference)
    try:
        receipt = _one(slide, work, reference.binary())
    except RaystpError as error:
        receipt = SlideReceipt(slide, 0, str(error))
    return {key: [value] for key, value in asdict(receipt).items()}


def _one(slide: str, work: SlideWork, mark: bytes) -> SlideReceipt:
    if refusal := work.begin(slide):
        return SlideReceipt(slide, 0, refusal)
    try:
        if mark not in _OPEN:
            _OPEN.clear()
            _OPEN[mark] = work, work.worker()
        return SlideReceipt(slide, _OPEN[mark][1](slide), "")
    finally:
        work.ended(slide)
