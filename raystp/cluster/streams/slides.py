"""Slides -> one result each, on Ray Data: a row of the stream is a slide, processed by one worker from start to end.

For work that reads no pixels and needs a slide as a whole. The work on a slide is a `SlideWork`. Any exception becomes
a receipt with its reason. After a crash Ray retries without limit; `SlideWork.begin` counts attempts and rejects the
slide after three.

On one machine, and where all slides are processed at once, each is a plain task, and Ray Data is not imported.
"""

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
import ray

from raystp.cluster.session import check_resources, is_local_ray, ray_data
from raystp.cluster.streams.tasks import as_finished
from raystp.errors import failure_reason


@runtime_checkable
class SlideWork(Protocol):
    """The work on each slide of a cohort; it is pickled and sent to every process once."""

    def begin(self, slide: str) -> str:
        """Record an attempt; return an error message if the slide crashed too many workers, else an empty string."""

    def end(self, slide: str) -> None:
        """Remove the record of attempts: the worker survived the slide."""

    def make_worker(self) -> Callable[[str], int]:
        """Open what is needed, once per process; return a function that processes a slide and returns its rows."""


@dataclass(frozen=True)
class SlideReceipt:
    """The outcome of a slide: its rows, or the error message."""

    slide: str
    rows: int
    error: str


@dataclass(frozen=True)
class SlideResources:
    """Number of concurrent processes, and the resources of each."""

    processes: int
    cpus: float = 1.0
    gpus: float = 0.0


def map_slides(work: SlideWork, slides: list[str], resources: SlideResources) -> Iterator[SlideReceipt]:
    """Process every slide; yield receipts as slides finish, in no particular order."""
    if not slides:
        return
    check_resources(cpus=resources.cpus, gpus=resources.gpus)
    reference = ray.put(work)
    if is_local_ray() or len(slides) <= resources.processes:
        options = {"num_cpus": resources.cpus, "num_gpus": resources.gpus, "max_retries": -1, "name": "slide"}
        remote: Any = ray.remote(_receipt_of).options(**options)
        for _, receipt in as_finished(
            lambda slide: remote.remote(slide, [reference]), slides, in_flight=resources.processes
        ):
            yield receipt
        return
    source = ray_data().from_items([{"slide": slide} for slide in slides], override_num_blocks=len(slides))
    # Tasks rather than actors: Ray reuses their processes, with all imported modules, for what runs next.
    function: Any = _process  # Ray's types do not allow further arguments
    plan = source.map_batches(
        function,
        fn_args=(reference,),
        batch_size=1,
        concurrency=min(resources.processes, len(slides)),
        num_cpus=resources.cpus,
        num_gpus=resources.gpus,
    )
    for row in plan.iter_rows():
        yield SlideReceipt(**row)


_OPEN_WORKERS: dict[bytes, tuple[SlideWork, Callable[[str], int]]] = {}
"""The worker that this process opened last, by the reference of its work."""


def _process(batch: dict[str, np.ndarray], reference: "ray.ObjectRef[SlideWork]") -> dict[str, list[object]]:
    """Turn a batch of one slide into its receipt."""
    receipt = _receipt_of(str(batch["slide"][0]), [reference])
    return {key: [value] for key, value in asdict(receipt).items()}


def _receipt_of(slide: str, reference: "list[ray.ObjectRef[SlideWork]]") -> SlideReceipt:
    """Process a slide. The reference is in a list, so that Ray does not replace it by the work."""
    work = ray.get(reference[0])
    try:
        return _process_slide(slide, work, reference[0].binary())
    except Exception as error:  # noqa: BLE001 -- one slide's fault does not end the others
        return SlideReceipt(slide, 0, failure_reason(error))


def _process_slide(slide: str, work: SlideWork, key: bytes) -> SlideReceipt:
    if refusal := work.begin(slide):
        return SlideReceipt(slide, 0, refusal)
    try:
        if key not in _OPEN_WORKERS:
            _OPEN_WORKERS.clear()
            _OPEN_WORKERS[key] = work, work.make_worker()
        return SlideReceipt(slide, _OPEN_WORKERS[key][1](slide), "")
    finally:
        work.end(slide)
