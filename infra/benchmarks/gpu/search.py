"""Neighbours of 1,024 queries: FAISS on CPU and GPU, flat and ivf, with the same answers; torch beside it."""

import time
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from gpu.figures import Figures, Options
from gpu.networks import wait_for

DIM, K, QUERIES, PROBES = 256, 50, 1024, 16

Search = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]
"""Queries -> scores and rows of their `K` neighbours."""


def measure(options: Options, figures: Figures) -> None:
    """Measure each kind of search; answers are compared with those of the same index on the CPU."""
    rng = np.random.default_rng(0)
    rows = _unit(rng.standard_normal((20_000 if options.quick else 1_000_000, DIM), dtype=np.float32))
    queries = _unit(rng.standard_normal((QUERIES, DIM), dtype=np.float32))
    flat_answer = _measure_torch(rows, queries, options, figures)
    try:
        import faiss  # noqa: PLC0415 -- absent on some machines
    except ImportError as error:
        figures.skip("FAISS", f"{error}: install faiss-cpu, or faiss-gpu-cu12 for a GPU")
        return
    flat = faiss.IndexFlatIP(DIM)
    flat.add(rows)
    lists = 256 if options.quick else 2048
    ivf = faiss.IndexIVFFlat(faiss.IndexFlatIP(DIM), DIM, lists, faiss.METRIC_INNER_PRODUCT)
    ivf.train(rows[: 64 * lists])
    ivf.add(rows)
    ivf.nprobe = PROBES
    for name, index in (("flat", flat), ("ivf", ivf)):
        answer = _time(f"FAISS {name}, CPU", partial(_search, index), queries, options, figures=figures)
        if name == "flat":
            figures.add("FAISS flat, CPU, neighbours as torch's", _agreement(answer, flat_answer), "%")
        if not (options.on_cuda and hasattr(faiss, "StandardGpuResources") and faiss.get_num_gpus()):
            figures.skip(f"FAISS {name}, GPU", "this FAISS sees no GPU: install faiss-gpu-cu12 beside a GPU")
            continue
        resources = faiss.StandardGpuResources()
        on_gpu: Any = faiss.index_cpu_to_gpu(resources, torch.device(options.device).index or 0, index)
        if name == "ivf":
            on_gpu.nprobe = PROBES
        found = _time(f"FAISS {name}, GPU", partial(_search, on_gpu), queries, options, figures=figures)
        figures.add(f"FAISS {name}, GPU, neighbours as the CPU's", _agreement(found, answer), "%")
        figures.add(f"FAISS {name}, GPU, largest difference of scores", float(np.abs(found[0] - answer[0]).max()), "")


def _search(index: Any, queries: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    scores, rows = index.search(queries, K)
    return scores, rows


def _measure_torch(
    rows: np.ndarray, queries: np.ndarray, options: Options, figures: Figures
) -> tuple[np.ndarray, np.ndarray]:
    """Measure a matrix product and topk of torch on the device, in parts of 128 queries."""
    index = torch.from_numpy(rows).to(options.device)

    def search(some: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        given = torch.from_numpy(some).to(options.device)
        parts = [torch.topk(part @ index.T, K) for part in torch.split(given, 128)]
        scores, found = (torch.cat([part[side] for part in parts]).cpu().numpy() for side in (0, 1))
        return scores, found

    return _time(f"torch flat, {options.device}", search, queries, options, figures=figures)


def _time(
    name: str, search: Search, queries: np.ndarray, options: Options, *, figures: Figures
) -> tuple[np.ndarray, np.ndarray]:
    search(queries[:32])
    wait_for(options.device)
    began = time.perf_counter()
    answer = search(queries)
    figures.add(name, len(queries) / (time.perf_counter() - began), "queries/s")
    return answer


def _agreement(found: tuple[np.ndarray, np.ndarray], expected: tuple[np.ndarray, np.ndarray]) -> float:
    """Return the share of neighbours that both have, in percent; ties and rounding change a few."""
    pairs = zip(found[1], expected[1], strict=True)
    return 100 * float(np.mean([len(np.intersect1d(a, b)) / K for a, b in pairs]))


def _unit(rows: np.ndarray) -> np.ndarray:
    unit: np.ndarray = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    return unit
