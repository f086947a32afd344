"""FAISS on a GPU, where there is one and it is asked for: candidates come from it, scores from the stored vectors.

Not shown on a GPU yet: this is a thin layer over `index_cpu_to_gpu`, and answers are settled as on a CPU.
"""

from typing import Any, Literal

import faiss
import numpy as np
from jaxtyping import Float32

from raystp.errors import ModelError
from raystp.index.search.kinds import Kind
from raystp.index.search.score import Metric

Device = Literal["auto", "cpu", "gpu"]

GPU_KINDS: tuple[Kind, ...] = ("exact", "ivf", "ivfsq")
MOST = 2048
"""Candidates that a GPU's selection can give."""


def wanted(device: Device, kind: Kind) -> bool:
    """Say whether a bank goes onto a GPU; raises ModelError where it must and cannot."""
    there = faiss.get_num_gpus() > 0
    if device == "gpu" and not (there and kind in GPU_KINDS):
        msg = (
            f"a bank of kind '{kind}' was asked onto a GPU: FAISS sees {faiss.get_num_gpus()} GPUs, and kinds that go "
        )
        raise ModelError(msg + f"there are {', '.join(GPU_KINDS)}; device 'cpu' would do")
    return bool(there) and device != "cpu" and kind in GPU_KINDS


def flat(vectors: Float32[np.ndarray, "row joint"], metric: Metric) -> Any:
    """Return a flat index over the vectors, on the first GPU."""
    index = (faiss.IndexFlatIP if metric == "cosine" else faiss.IndexFlatL2)(vectors.shape[1])
    index.add(vectors)
    return moved(index)


def moved(index: Any) -> Any:
    """Return a copy of the index on the first GPU."""
    return faiss.index_cpu_to_gpu(faiss.StandardGpuResources(), 0, index)


def ask(
    index: Any, prepared: Float32[np.ndarray, "query joint"], fetched: int, nprobe: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return approximate scores and rows of each query's candidates, as `raystp.index.search.faiss_lists.ask` does."""
    if hasattr(index, "nprobe"):
        index.nprobe = nprobe
    near, rows = index.search(prepared, fetched)
    if index.metric_type == faiss.METRIC_L2:
        near = -near
    near[rows < 0] = -np.inf
    return near, rows
