"""Slides -> whatever is made of each, on Ray Data: the stream's row is a slide, done by an actor from end to end.

For work that reads no pixels and needs a slide as a whole. What is done with a slide is passed in as a `SlideWork`. A
slide that fails with a sentence becomes a receipt with that sentence; one whose process ends is begun again by Ray,
without end, so the work counts how often, and refuses it in the end.
"""

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
import ray
import ray.data
from ray.data import ActorPoolStrategy

from raystp.errors import RaystpError


@runtime_checkable
class SlideWork(Protocol):
    """What is done with each slide of a cohort; it is sent to every actor once."""

    def begin(self, slide: str) -> str:
        """Leave a mark; return a sentence where this slide has ended too many processes."""

    def ended(self, slide: str) -> None:
        """Take the mark away."""

    def worker(self) -> Callable[[str], int]:
        """Open, once per actor, all that is needed; return what does a slide and gives its rows."""


@dataclass(frozen=True)
class SlideReceipt:
    """What became of a slide: its rows, or the sentence of its failure."""

    slide: str
    rows: int
    error: str


@dataclass(frozen=True)
class SlideWidth:
    """How many actors share the slides, and what each holds."""

    actors: int
    cpus: float = 1.0
    gpus: float = 0.0


def each_slide(work: SlideWork, slides: list[str], width: SlideWidth) -> Iterator[SlideReceipt]:
    """Do every slide and yield its receipt as it is done, in no particular order."""
    if not slides:
        return
    source = ray.data.from_items([{"slide": slide} for slide in slides], override_num_blocks=len(slides))
    plan = source.map_batches(
        DoSlide,
        fn_constructor_args=(work,),
        batch_size=1,
        compute=ActorPoolStrategy(size=min(width.actors, len(slides))),
        num_cpus=width.cpus,
        num_gpus=width.gpus,
    )
    for row in plan.iter_rows():
        yield SlideReceipt(**row)


class DoSlide:
    """An actor that does whole slides."""

    def __init__(self, work: SlideWork) -> None:
        self._work = work
        self._do: Callable[[str], int] | None = None

    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, list[Any]]:
        """Turn a batch of one slide into its receipt."""
        slide = str(batch["slide"][0])
        try:
            receipt = self._one(slide)
        except RaystpError as error:
            receipt = SlideReceipt(slide, 0, str(error))
        return {key: [value] for key, value in asdict(receipt).items()}

    def _one(self, slide: str) -> SlideReceipt:
        if refusal := self._work.begin(slide):
            return SlideReceipt(slide, 0, refusal)
        try:
            if self._do is None:
                self._do = self._work.worker()
            return SlideReceipt(slide, self._do(slide), "")
        finally:
            self._work.ended(slide)
