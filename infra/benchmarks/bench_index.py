"""How fast a bank answers and how much it finds: each kind, FAISS flat, and torch matmul + topk, in turns of one run.

    python infra/benchmarks/bench_index.py [--out index.json] [--rows 10000 100000 1000000] [--queries 1000]
        [--kinds exact ivf ivfsq ivfpq hnsw] [--rounds 5] [--shards 8] [--target 0.99]

Rows are 256-d unit vectors around 2,000 centres, queries are others around the same centres, k = 50. Ways take turns,
round by round, and each rate is the median over the rounds of a ratio within one round, so that a busy machine weighs
on all alike. The limit of exact search is the same float32 product, query x row, into one buffer of a block at a time,
by the fastest of numpy's BLAS, torch's, and oneDNN. Effort is chosen on queries of its own; recall is measured on
others. Sharding's own cost is what shards of one process take more than one shard of all rows, for the same answers.
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
from threadpoolctl import threadpool_info  # type: ignore[import-untyped]

from raystp.index.open import ReferenceIndex, open_reference_index
from raystp.index.recall import measure_recall, recall
from raystp.index.reference import ReferenceRows
from raystp.index.search.kinds import KINDS, IndexParams, SearchParams
from raystp.index.write import write_reference_index
from raystp.storage import StoragePath

JOINT, CENTRES, K = 256, 2000, 50
BLOCK = 16_384
TUNING = 256
"""Queries that effort is chosen on."""


def drawn(rows: int, seed: int) -> np.ndarray:
    """Return unit vectors around the centres, the same for the same seed."""
    centres = np.random.default_rng(0).standard_normal((CENTRES, JOINT), dtype=np.float32)
    random = np.random.default_rng(seed)
    found = np.empty((rows, JOINT), np.float32)
    for start in range(0, rows, 100_000):
        part = found[start : start + 100_000]
        part[:] = centres[random.integers(0, CENTRES, len(part))]
        part += 0.5 * random.standard_normal(part.shape, dtype=np.float32)
        part /= np.linalg.norm(part, axis=1)[:, None]
    return found


def bank_in(
    folder: Path, vectors: np.ndarray, kind: Any, *, shards: int, target: float
) -> tuple[ReferenceIndex, dict[str, Any]]:
    """Write a bank of one gene and open it; say what that took."""
    names = ["x"] * len(vectors)
    reference = ReferenceRows(vectors, np.zeros((len(vectors), 1), np.float32), ["g"], names, names, names)
    place = StoragePath.of(folder)
    start = time.perf_counter()
    described = write_reference_index(
        place, reference, shards=shards, metric="cosine", params=IndexParams(kind=kind, recall=target, k=K)
    )
    took = time.perf_counter() - start
    size = sum(path.stat().st_size for path in folder.iterdir() if "expression" not in path.name)
    known = {name: described[name] for name in ("kind", "why", "lists", "effort", "recall", "below_target")}
    return open_reference_index(place, described), {"build_s": took, "bytes": size, **known}


def products(vectors: np.ndarray, queries: np.ndarray) -> dict[str, Callable[[], Any]]:
    """Return the ways to the limit: query x row, in blocks of rows that are thrown away."""
    out = np.empty((len(queries), BLOCK), np.float32)
    mapped, asked, target = torch.from_numpy(vectors), torch.from_numpy(queries), torch.from_numpy(out)
    starts = range(0, len(vectors), BLOCK)

    def numpy_blas() -> None:
        for start in starts:
            block = vectors[start : start + BLOCK]
            np.matmul(queries, block.T, out=out.reshape(-1)[: len(queries) * len(block)].reshape(-1, len(block)))

    def torch_blas() -> None:
        for start in starts:
            block = mapped[start : start + BLOCK]
            torch.mm(asked, block.T, out=target.view(-1)[: len(queries) * len(block)].view(-1, len(block)))

    def one_dnn() -> None:
        for start in starts:
            torch.ops.mkldnn._linear_pointwise(asked, mapped[start : start + BLOCK], None, "none", [], "")

    return {"product numpy": numpy_blas, "product torch": torch_blas, "product oneDNN": one_dnn}


def torch_topk(vectors: np.ndarray, queries: np.ndarray) -> Callable[[], Any]:
    """Return the search that BLEEP's code does: a product and topk, queries in blocks that fit memory."""
    mapped, asked = torch.from_numpy(vectors), torch.from_numpy(queries)
    step = max(1, (1 << 28) // len(vectors))
    return lambda: [torch.topk(part @ mapped.T, K, dim=1) for part in torch.split(asked, step)]


PAUSE_S = 0.3


def in_turns(ways: dict[str, Callable[[], Any]], rounds: int) -> dict[str, list[float]]:
    """Return each way's seconds in each round, after a round that does not count.

    Between them there is a pause, for threads of a BLAS wait for more work for a while, at others' cost.
    """
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(rounds + 1):
        for name, run in ways.items():
            time.sleep(PAUSE_S)
            start = time.perf_counter()
            run()
            if number:
                seconds[name].append(time.perf_counter() - start)
    return seconds


def ratio(seconds: dict[str, list[float]], of: str, to: list[str]) -> float:
    """Return how many times as fast as the fastest of `to` a way is: the median of the rounds."""
    rounds = zip(seconds[of], *(seconds[name] for name in to), strict=True)
    return float(statistics.median(min(others) / own for own, *others in rounds))


def compare(rows: int, given: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Build every kind over the same rows, and let all answer the same queries in turns."""
    vectors, queries = drawn(rows, 1), drawn(given.queries, 2)
    flat = faiss.IndexFlatIP(JOINT)
    flat.add(vectors)
    figures: dict[str, Any] = {"rows": rows, "queries": len(queries), "ways": {}}
    ways: dict[str, Callable[[], Any]] = {
        "FAISS flat": lambda: flat.search(queries, K),
        "torch matmul + topk": torch_topk(vectors, queries),
        **products(vectors, queries),
    }
    banks: dict[str, ReferenceIndex] = {}
    for kind in given.kinds:
        bank, built = bank_in(folder / f"{kind}-{rows}", vectors, kind, shards=1, target=given.target)
        if kind != "exact":
            chosen = measure_recall(bank, IndexParams(recall=given.target, k=K, kind=kind), drawn(TUNING, 3))
            bank = replace(bank, params=SearchParams(**chosen["effort"]))
            built |= {"effort": chosen["effort"], "below_target": chosen["below_target"]}
        banks[kind] = bank
        figures["ways"][kind] = built
        ways[kind] = functools.partial(bank.search, queries, K)
    seconds = in_turns(ways, given.rounds)
    truth = banks["exact"].search(queries, K)
    for name, taken in seconds.items():
        own = figures["ways"].setdefault(name, {})
        own |= {
            "queries_per_s": len(queries) / statistics.median(taken),
            "of_flat": ratio(seconds, name, ["FAISS flat"]),
        }
    for kind, bank in banks.items():
        figures["ways"][kind]["recall"] = recall(bank.search(queries, K), truth)
    figures["exact_of_product"] = ratio(seconds, "exact", [name for name in seconds if name.startswith("product")])
    figures["auto"] = choice(vectors, folder, figures["ways"], given.target)
    return figures


def choice(vectors: np.ndarray, folder: Path, ways: dict[str, Any], target: float) -> dict[str, Any]:
    """Return what `auto` takes, and whether another kind that reaches the target is faster."""
    _, built = bank_in(folder / f"auto-{len(vectors)}", vectors, "auto", shards=1, target=target)
    reach = {kind: ways[kind]["queries_per_s"] for kind in KINDS if kind in ways and ways[kind]["recall"] >= target}
    best = max(reach, key=lambda kind: reach[kind])
    return {
        "kind": built["kind"],
        "why": built["why"],
        "fastest": best,
        "of_fastest": reach.get(built["kind"], 0) / reach[best],
    }


def sharding(rows: int, given: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Return what fan-out and merge over shards of one process cost, by kind."""
    vectors, queries = drawn(rows, 1), drawn(given.queries, 2)
    found = {}
    for kind in (kind for kind in ("exact", "ivfsq") if kind in given.kinds):
        one, built = bank_in(folder / f"one-{kind}", vectors, kind, shards=1, target=given.target)
        many, _ = bank_in(folder / f"many-{kind}", vectors, kind, shards=given.shards, target=given.target)
        many = replace(many, params=one.params)
        asked: dict[str, Callable[[], Any]] = {
            "one": functools.partial(one.search, queries, K),
            "many": functools.partial(many.search, queries, K),
        }
        seconds = in_turns(asked, given.rounds)
        same = float((asked["one"]()[1] == asked["many"]()[1]).mean())
        found[kind] = {"shards": given.shards, "cost": 1 / ratio(seconds, "many", ["one"]) - 1, "same_rows": same}
        found[kind]["effort"] = built["effort"]
    return found


def machine() -> dict[str, Any]:
    """Say which libraries multiplied, with how many threads, for which processor."""
    libraries = [
        {name: one.get(name) for name in ("internal_api", "version", "architecture", "num_threads")}
        for one in threadpool_info()
    ]
    return {"processor": platform.processor(), "libraries": libraries, "faiss": faiss.get_compile_options()}


def show(figures: dict[str, Any]) -> None:
    """Print one size."""
    say(f"\n{figures['rows']:,} rows, {figures['queries']:,} queries, k = {K}")
    for name, one in figures["ways"].items():
        rate = f"{one['queries_per_s']:10,.0f} q/s  x{one['of_flat']:7.2f} of flat"
        built = f"{one['build_s']:8.1f} s {one['bytes'] / 1e6:8.0f} MB" if "build_s" in one else ""
        found = f"{one['recall']:.4f}" if "recall" in one else "      "
        say(f"{name:22} {rate}  {found} {built} {one.get('effort', '')}")
    say(f"exact search is {figures['exact_of_product']:.3f} of the fastest product; auto: {figures['auto']}")


def say(line: str) -> None:
    """Print one line at once."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def main() -> None:
    """Measure, print, and write what was asked for."""
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
        result["sharding"] = sharding(max(given.rows), given, Path(folder))
    say(f"\nsharding's own cost: {result['sharding']}")
    if given.out:
        given.out.write_text(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
