"""One `impute` of a million tiles with an index of a million rows: tiles per second, memory, and a kill.

    python infra/benchmarks/bench_cohort.py [--rows 1000000] [--tiles 1000000] [--genes 2000] [--slides 100]

The cohort, the model and the index are simulated (`bench_cohort_made.py`). The step runs in its own process with its
own Ray. It is killed once in the middle, with all its processes, and is run again. Memory is the sum of the PSS of all
its processes (shared pages are divided among them), with the object store and the mapped index. Some slides are then
predicted again by exact search, and both results are compared.
"""

import argparse
import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from bench_cohort_made import artifact_writer, expression, features, make_embeddings, make_model
from bench_scale_watch import Samples, descendants, sample

from raystp import tables
from raystp.artifacts import Artifact, resolve
from raystp.index.open import open_reference_index
from raystp.index.queries import calibrate
from raystp.index.reference import rows_table, shard_ranges
from raystp.index.search.kinds import IndexParams
from raystp.index.write import describe, plan_index, sample_rows, write_shard_files
from raystp.models.predictor import ContrastivePredictor

LIMIT_GB = 6.0
KILL_AFTER = 0.4
"""Share of the slides after which the run is killed."""


def main() -> None:
    """Simulate the cohort, run it with a kill in the middle, and compare with exact search."""
    options = _options()
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        store = Path(name)
        began = time.perf_counter()
        model, predictor = make_model(store, options.genes)
        make_embeddings(store, options.tiles, options.slides)
        _say(f"{options.tiles:,} tiles of {options.slides} slides simulated in {time.perf_counter() - began:.0f} s")
        index = _build_index(store, model, predictor, options)
        description = index.manifest.notes["bank"]
        sentence = description.get("sentence", description["why"])
        _say(f"index of {options.rows:,} rows x {options.genes} genes: {description['kind']}, {sentence}")
        figures = {"index": {key: description.get(key) for key in ("kind", "why", "recall", "effort")}}
        figures |= _run(store, options)
        figures |= _against_exact(store, options)
    if options.out:
        options.out.write_text(json.dumps(figures, indent=1), encoding="utf-8")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--out", type=Path, help="write the figures as JSON")
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--tiles", type=int, default=1_000_000)
    parser.add_argument("--genes", type=int, default=2_000)
    parser.add_argument("--slides", type=int, default=100)
    parser.add_argument("--shards", type=int, default=8)
    parser.add_argument("--kind", default="ivfsq")
    parser.add_argument("--form", default="csr16")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--exact", type=int, default=10_000, help="tiles that are also predicted by exact search")
    parser.add_argument("--folder", help="working folder; by default the folder of temporary files")
    return parser.parse_args()


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def _build_index(
    store: Path, model: Artifact, predictor: ContrastivePredictor, options: argparse.Namespace
) -> Artifact:
    """Write the index, shard by shard, as the tasks of `index` do."""
    began = time.perf_counter()
    writer = artifact_writer(
        store, "index", "made", {"rows": options.rows, "name": "made"}, model=model.manifest.folder
    )
    params = IndexParams(kind=options.kind, form=options.form)
    tiles, kinds = features(options.rows, 1)
    vectors = np.concatenate([predictor.embed_images(tiles[a:b]) for a, b in _spans(options.rows, 50_000)])
    del tiles
    sample = sample_rows(options.rows, params)
    patients = ["reference"] * len(sample)
    plan = plan_index(writer.path, vectors[sample], patients, rows=options.rows, metric="cosine", params=params)
    shards, rows = [], []
    for number, (a, b) in enumerate(shard_ranges(options.rows, options.shards)):
        counts = expression(kinds[a:b], options.genes, number)
        shards.append(write_shard_files(writer.path, number, vectors[a:b], counts, plan=plan))
        names = [f"spot-{row}" for row in range(a, b)]
        owner = ["reference"] * (b - a)
        rows.append(rows_table(vectors[a:b], owner, names, owner, columns={"slide": owner}))
    queries = predictor.embed_images(features(256, 7)[0])
    description = describe(writer.path, plan, shards, pa.concat_tables(rows), genes=predictor.genes, queries=queries)
    index = open_reference_index(writer.path, description)
    distance = calibrate(index.nearest_distance(index.search(queries, 1)[0][:, 0]))
    notes = {"bank": description, "model": model.manifest.folder, "vectors": "image", "distance": distance}
    _say(f"index built in {time.perf_counter() - began:.0f} s, {_megabytes(writer.path.local_path):,.0f} MB")
    return writer.finish({"rows": options.rows}, [], {**notes, "patients": ["reference"], "slides": ["reference"]})


def _spans(count: int, at_once: int) -> Iterator[tuple[int, int]]:
    return ((first, min(first + at_once, count)) for first in range(0, count, at_once))


def _megabytes(folder: Path) -> float:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / 1e6


def _command(store: Path, options: argparse.Namespace, **changes: Any) -> list[str]:
    values = {"embeddings": "embed/made", "model": "train/made", "index": "index/made", "name": "cohort"}
    values |= {"run.store": str(store), "run.processes": options.processes, **changes}
    words = [word for key, value in values.items() for word in ("--set", f"{key}={value}")]
    return [sys.executable, "-m", "raystp.cli", "impute", *words]


def _run(store: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Run the cohort, kill it once and run it again; print time and memory."""
    killed = _watched(_command(store, options), store, kill_at=int(KILL_AFTER * options.slides))
    before = _commits(store)
    _say(f"killed after {len(before)} of {options.slides} slides, peak {killed.peak_bytes / 1e9:.2f} GB of PSS")
    rerun = _watched(_command(store, options), store)
    after = _commits(store)
    kept = all(after[slide] == moment for slide, moment in before.items())
    _say(f"run again: {len(after)} slides, the finished ones {'kept' if kept else 'PREDICTED AGAIN: MISSED'}")
    moments = sorted(moment for slide, moment in after.items() if slide not in before)
    rate = (len(moments) - 1) * (options.tiles // options.slides) / (moments[-1] - moments[0])
    peak = max(killed.peak_bytes, rerun.peak_bytes) / 1e9
    written = _megabytes(resolve(str(store), "impute/cohort", "impute").path.local_path)
    _say(f"{rate:,.0f} tiles/s from slide to slide, {written:,.0f} MB written")
    missed = ", MISSED" if peak > LIMIT_GB else ""
    _say(f"peak {peak:.2f} GB of PSS, with object store and mapped index (goal {LIMIT_GB}{missed})")
    return {"tiles_per_s": rate, "peak_gb": peak, "written_mb": written, "killed_after": len(before), "kept": kept}


def _watched(command: list[str], store: Path, kill_at: int | None = None) -> Samples:
    """Run a command and sample its memory; kill it and all its processes once `kill_at` slides are done."""
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, start_new_session=True)
    usage, over = Samples(), threading.Event()
    thread = threading.Thread(target=sample, args=(process.pid, usage, over))
    thread.start()
    while process.poll() is None:
        time.sleep(0.2)
        if kill_at is not None and len(_commits(store)) >= kill_at:
            for pid in descendants(process.pid):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            process.wait()
    over.set()
    thread.join()
    if kill_at is None and process.returncode:
        msg = f"impute ended with {process.returncode}"
        raise RuntimeError(msg)
    return usage


def _commits(store: Path) -> dict[str, float]:
    return {path.stem: path.stat().st_mtime for path in store.glob("impute/cohort-*/commits/*.json")}


def _against_exact(store: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Predict some slides by exact search, and print how the two results differ."""
    each = options.tiles // options.slides
    slides = [f"slide-{number:04d}" for number in range(max(1, options.exact // each))]
    began = time.perf_counter()
    words = _command(store, options, name="exact", search="exact", slides=f"[{','.join(slides)}]")
    subprocess.run(words, check=True, stdout=subprocess.DEVNULL)
    seconds = time.perf_counter() - began
    one, two = (resolve(str(store), f"impute/{name}", "impute") for name in ("cohort", "exact"))
    worst, pcc = 0.0, []
    for slide in slides:
        a, b = (_predicted(artifact, slide) for artifact in (one, two))
        worst = max(worst, float(np.abs(a - b).max()))
        pcc.append(float(np.corrcoef(a.ravel(), b.ravel())[0, 1]))
    tiles = each * len(slides)
    _say(f"exact search of {tiles:,} tiles, {seconds:.0f} s with its start: PCC {np.mean(pcc):.5f}, worst {worst:.3f}")
    return {"exact_s": seconds, "pcc": float(np.mean(pcc)), "worst": worst}


def _predicted(artifact: Artifact, slide: str) -> np.ndarray:
    table = (artifact.path / "predictions" / f"{slide}.parquet").read_table(["expression"])
    return tables.matrix(table["expression"])


if __name__ == "__main__":
    main()
