"""Speed and recall of a reference index: each kind, FAISS flat, and torch matmul + topk, alternating in one run.

    python infra/benchmarks/bench_index.py [--out index.json] [--rows 10000 100000 1000000] [--queries 1000]
        [--kinds exact ivf ivfsq ivfpq hnsw] [--rounds 5] [--shards 8] [--target 0.99]

Rows are 256-d unit vectors around 2,000 centres, queries are other vectors around the same centres, k = 50. Searches
alternate, round by round. Each ratio is the median over the rounds of a ratio within one round, so that load on the
machine affects all searches equally. The upper limit of exact search is the same float32 product, query x row, into one
buffer of a block at a time, by the fastest of numpy's BLAS, torch's, and oneDNN. Search parameters are chosen on
separate queries; recall is measured on others. The cost of sharding is the time of several shards in one process over
that of one shard with all rows, for the same results.
"""

import argparse
import functools
import json
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import torch

from raystp.index.description import IndexDescription
from raystp.index.open import ReferenceIndex, open_reference_index
from raystp.index.recall import measure_recall, recall
from raystp.index.reference import ReferenceRows
from raystp.index.search.kinds import KINDS, IndexParams, Kind, SearchParams
from raystp.index.write import write_reference_index
from raystp.storage import StoragePath

JOINT, CENTRES, K = 256, 2000, 50
BLOCK = 16_384
TUNING = 256
"""Queries on which search parameters are chosen."""
PAUSE_S = 0.3

Run = Callable[[], object]


def draw(rows: int, seed: int) -> np.ndarray:
    """Return unit vectors around the centres, the same for the same seed."""
    centres = np.random.default_rng(0).standard_normal((CENTRES, JOINT), dtype=np.float32)
    random = np.random.default_rng(seed)
    vectors = np.empty((rows, JOINT), np.float32)
    for start in range(0, rows, 100_000):
        part = vectors[start : start + 100_000]
        part[:] = centres[random.integers(0, CENTRES, len(part))]
        part += 0.5 * random.standard_normal(part.shape, dtype=np.float32)
        part /= np.linalg.norm(part, axis=1)[:, None]
    return vectors


def build(
    folder: Path, vectors: np.ndarray, kind: Any, *, shards: int, target: float
) -> tuple[ReferenceIndex, dict[str, Any]]:
    """Write an index of one gene and open it; return it with the time and bytes that it took."""
    names = ["x"] * len(vectors)
    reference = ReferenceRows(vectors, np.zeros((len(vectors), 1), np.float32), ["g"], names, names, names)
    store = StoragePath.of(folder)
    start = time.perf_counter()
    params = IndexParams(kind=kind, recall=target, k=K)
    description = write_reference_index(store, reference, shards=shards, metric="cosine", params=params)
    seconds = time.perf_counter() - start
    size = sum(path.stat().st_size for path in folder.iterdir() if "expression" not in path.name)
    return open_reference_index(store, description), {"build_s": seconds, "bytes": size, **_summary(description)}


def _summary(description: IndexDescription) -> dict[str, object]:
    names = ("kind", "why", "lists", "effort", "recall", "below_target")
    return {name: value for name, value in description.items() if name in names}


def products(vectors: np.ndarray, queries: np.ndarray) -> dict[str, Run]:
    """Return the matrix products: query x row, in blocks of rows that are discarded."""
    out = np.empty((len(queries), BLOCK), np.float32)
    rows, query_rows, target = torch.from_numpy(vectors), torch.from_numpy(queries), torch.from_numpy(out)
    starts = range(0, len(vectors), BLOCK)

    def numpy_blas() -> None:
        for start in starts:
            block = vectors[start : start + BLOCK]
            np.matmul(queries, block.T, out=out.reshape(-1)[: len(queries) * len(block)].reshape(-1, len(block)))

    def torch_blas() -> None:
        for start in starts:
            block = rows[start : start + BLOCK]
            torch.mm(query_rows, block.T, out=target.view(-1)[: len(queries) * len(block)].view(-1, len(block)))

    def one_dnn() -> None:
        for start in starts:
            torch.ops.mkldnn._linear_pointwise(query_rows, rows[start : start + BLOCK], None, "none", [], "")

    return {"product numpy": numpy_blas, "product torch": torch_blas, "product oneDNN": one_dnn}


def torch_topk(vectors: np.ndarray, queries: np.ndarray) -> Run:
    """Return the search of BLEEP's code: a product and topk, queries in blocks that fit memory."""
    rows, query_rows = torch.from_numpy(vectors), torch.from_numpy(queries)
    step = max(1, (1 << 28) // len(vectors))
    return lambda: [torch.topk(part @ rows.T, K, dim=1) for part in torch.split(query_rows, step)]


def alternate(runs: dict[str, Run], rounds: int) -> dict[str, list[float]]:
    """Return the seconds of each run in each round, after a round that is not counted.

    A pause follows each run, because threads of a BLAS wait for more work for a while and slow the next run.
    """
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for number in range(rounds + 1):
        for name, run in runs.items():
            time.sleep(PAUSE_S)
            start = time.perf_counter()
            run()
            if number:
                seconds[name].append(time.perf_counter() - start)
    return seconds


def speed_ratio(seconds: dict[str, list[float]], name: str, others: list[str]) -> float:
    """Return the speed of a run over that of the fastest of the others: the median over the rounds."""
    rounds = zip(seconds[name], *(seconds[other] for other in others), strict=True)
    return float(statistics.median(min(theirs) / own for own, *theirs in rounds))


def compare(rows: int, given: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Build every kind over the same rows, and time all searches of the same queries."""
    vectors, queries = draw(rows, 1), draw(given.queries, 2)
    flat = faiss.IndexFlatIP(JOINT)
    flat.add(vectors)
    figures: dict[str, Any] = {"rows": rows, "queries": len(queries), "searches": {}}
    runs: dict[str, Run] = {
        "FAISS flat": lambda: flat.search(queries, K),
        "torch matmul + topk": torch_topk(vectors, queries),
        **products(vectors, queries),
    }
    indexes: dict[Kind, ReferenceIndex] = {}
    for kind in given.kinds:
        index, built = build(folder / f"{kind}-{rows}", vectors, kind, shards=1, target=given.target)
        if kind != "exact":
            chosen = measure_recall(index, IndexParams(recall=given.target, k=K, kind=kind), draw(TUNING, 3))
            index = replace(index, params=SearchParams(**chosen["effort"]))
            built |= {"effort": chosen["effort"], "below_target": chosen["below_target"]}
        indexes[kind] = index
        figures["searches"][kind] = built
        runs[kind] = functools.partial(index.search, queries, K)
    seconds = alternate(runs, given.rounds)
    truth = indexes["exact"].search(queries, K)
    for name, taken in seconds.items():
        own = figures["searches"].setdefault(name, {})
        own |= {
            "queries_per_s": len(queries) / statistics.median(taken),
            "of_flat": speed_ratio(seconds, name, ["FAISS flat"]),
        }
    for kind, index in indexes.items():
        figures["searches"][kind]["recall"] = recall(index.search(queries, K), truth)
    figures["exact_of_product"] = speed_ratio(
        seconds, "exact", [name for name in seconds if name.startswith("product")]
    )
    figures["auto"] = auto_choice(vectors, folder, figures["searches"], given.target)
    return figures


def auto_choice(vectors: np.ndarray, folder: Path, searches: dict[str, Any], target: float) -> dict[str, Any]:
    """Return the kind that `auto` chooses, and whether another kind that reaches the target is faster."""
    _, built = build(folder / f"auto-{len(vectors)}", vectors, "auto", shards=1, target=target)
    kinds = [kind for kind in KINDS if kind in searches and searches[kind]["recall"] >= target]
    rates = {kind: searches[kind]["queries_per_s"] for kind in kinds}
    best = max(rates, key=lambda kind: rates[kind])
    return {
        "kind": built["kind"],
        "why": built["why"],
        "fastest": best,
        "of_fastest": rates.get(built["kind"], 0) / rates[best],
    }


def sharding_cost(rows: int, given: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Return the cost of fan-out and merge over shards of one process, by kind."""
    vectors, queries = draw(rows, 1), draw(given.queries, 2)
    costs = {}
    for kind in (kind for kind in ("exact", "ivfsq") if kind in given.kinds):
        one, built = build(folder / f"one-{kind}", vectors, kind, shards=1, target=given.target)
        many, _ = build(folder / f"many-{kind}", vectors, kind, shards=given.shards, target=given.target)
        many = replace(many, params=one.params)
        runs: dict[str, Run] = {
            "one": functools.partial(one.search, queries, K),
            "many": functools.partial(many.search, queries, K),
        }
        seconds = alternate(runs, given.rounds)
        same = float((one.search(queries, K)[1] == many.search(queries, K)[1]).mean())
        costs[kind] = {"shards": given.shards, "cost": 1 / speed_ratio(seconds, "many", ["one"]) - 1, "same_rows": same}
        costs[kind]["effort"] = built["effort"]
    return costs


def machine() -> dict[str, Any]:
    """Return the processor, the threads of FAISS and torch, and how FAISS was compiled."""
    threads = {"faiss": faiss.omp_get_max_threads(), "torch": torch.get_num_threads()}
    return {"processor": platform.processor(), "threads": threads, "faiss": faiss.get_compile_options()}


def show(figures: dict[str, Any]) -> None:
    """Print the figures of one size."""
    say(f"\n{figures['rows']:,} rows, {figures['queries']:,} queries, k = {K}")
    for name, search in figures["searches"].items():
        rate = f"{search['queries_per_s']:10,.0f} q/s  x{search['of_flat']:7.2f} of flat"
        built = f"{search['build_s']:8.1f} s {search['bytes'] / 1e6:8.0f} MB" if "build_s" in search else ""
        reached = f"{search['recall']:.4f}" if "recall" in search else "      "
        say(f"{name:22} {rate}  {reached} {built} {search.get('effort', '')}")
    say(f"exact search is {figures['exact_of_product']:.3f} of the fastest product; auto: {figures['auto']}")


def say(line: str) -> None:
    """Print one line at once."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def main() -> None:
    """Measure, print, and write the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--rows", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--queries", type=int, default=1000)
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--shards", type=int, default=8)
    parser.add_argument("--target", type=float, default=0.99)
    given = parser.parse_args()
    given.kinds = list(dict.fromkeys(["exact", *given.kinds]))
    result: dict[str, Any] = {"machine": machine(), "sizes": []}
    for rows in given.rows:
        with tempfile.TemporaryDirectory() as folder:
            result["sizes"].append(compare(rows, given, Path(folder)))
        show(result["sizes"][-1])
    with tempfile.TemporaryDirectory() as folder:
        result["sharding"] = sharding_cost(max(given.rows), given, Path(folder))
    say(f"\ncost of sharding: {result['sharding']}")
    if given.out:
        given.out.write_text(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
