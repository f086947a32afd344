"""FAISS on a GPU: candidates come from the GPU, scores from the stored vectors on the CPU.

Not tested on a GPU yet. This is a thin layer over `index_cpu_to_gpu`; results are settled as on the CPU.
"""

from typing import Literal

import faiss
import numpy as np
from jaxtyping import Float32

from raystp.errors import ModelError
from raystp.index.search.exact import Candidates
from raystp.index.search.faiss_lists import as_candidates
from raystp.index.search.kinds import Kind
from raystp.index.search.score import Metric

Device = Literal["auto", "cpu", "gpu"]

GPU_KINDS: tuple[Kind, ...] = ("exact", "ivf", "ivfsq")
MAX_CANDIDATES = 2048
"""Candidates that the GPU's selection can return."""


def gpu_count() -> int:
    """Return the number of GPUs that FAISS sees."""
    return int(faiss.get_num_gpus())


def use_gpu(device: Device, kind: Kind) -> bool:
    """Return whether an index is searched on a GPU; raise ModelError where `device` requires one and that fails."""
    gpus = faiss.get_num_gpus()
    if device == "gpu" and not (gpus and kind in GPU_KINDS):
        msg = (
            f"device 'gpu' with an index of kind '{kind}' is not possible: FAISS sees {gpus} GPUs and supports "
            f"{', '.join(GPU_KINDS)} on them; use device 'cpu'"
        )
        raise ModelError(msg)
    return gpus > 0 and device != "cpu" and kind in GPU_KINDS


def flat_index(vectors: Float32[np.ndarray, "row joint"], metric: Metric) -> faiss.Index:
    """Return a flat index of the vectors, on the first GPU."""
    index = (faiss.IndexFlatIP if metric == "cosine" else faiss.IndexFlatL2)(vectors.shape[1])
    index.add(vectors)
    return to_gpu(index)


def to_gpu(index: faiss.Index) -> faiss.Index:
    """Return a copy of the index on the first GPU."""
    return faiss.index_cpu_to_gpu(faiss.StandardGpuResources(), 0, index)


def find_candidates(
    index: faiss.Index, prepared: Float32[np.ndarray, "query joint"], fetched: int, nprobe: int
) -> Candidates:
    """Return approximate scores and rows of each query's candidates, as `faiss_lists.find_candidates` does."""
    if hasattr(index, "nprobe"):
        index.nprobe = nprobe
    return as_candidates(index, *index.search(prepared, fetched))
