"""Measure one slide of a few hundred tiles on a Ray that runs: `tile`, `embed` by actors and by plain tasks, `predict`.

    python infra/benchmarks/bench_warm.py [--tiles 300] [--turns 4] [--out FILE]

All steps run in one process, as in a notebook. The first turn is cold: its processes import what they need. Wall clock
seconds, and CPU seconds of all processes with Ray's own, of each later turn; the median is printed. `actors` is the way
of slides with more units than encoders, forced here for one unit. `predict` does all its steps anew, with a published
BLEEP model of the smoke demo, which is trained before the first turn.
"""

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from unittest.mock import patch

from bench_embed_slide import MPP, SIDE, make_slide, run_tile
from bench_embed_table import say
from bench_embed_watch import watch

from raystp.artifacts import Artifact
from raystp.cluster.session import session
from raystp.cluster.streams import tiles as tile_stream
from raystp.expression.sections import embeddings_of
from raystp.steps.demo import step as demo
from raystp.steps.embed import step as embed
from raystp.steps.predict import step as predict
from raystp.steps.publish import step as publish

TIMEOUT_S = 900.0
TILE, ACTORS, TASKS, PREDICT = "tile", "embed, actors", "embed, tasks", "predict"
SMOKE = Path(__file__).parents[2] / "conf" / "demo" / "smoke.yaml"


@dataclass(frozen=True)
class Span:
    """A call of a step: seconds since the epoch."""

    step: str
    turn: int
    start: float
    end: float


@dataclass(frozen=True)
class Row:
    """A step, cold or warm."""

    step: str
    turn: str
    seconds: float
    cpu_s: float
    """Of all processes."""


def main() -> None:
    """Run the turns in a process that is watched, and print the table."""
    options = _options()
    if options.run:
        spans = list(run_turns(options.run, options.tiles, options.turns))
        (options.run / "spans.json").write_text(json.dumps([asdict(one) for one in spans]), encoding="utf-8")
        return
    with tempfile.TemporaryDirectory() as folder:
        size = ["--tiles", str(options.tiles), "--turns", str(options.turns)]
        run = watch([sys.executable, __file__, "--run", folder, *size], {}, TIMEOUT_S)
        if run.status:
            say(run.output)
            sys.exit(1)
        spans = [Span(**one) for one in json.loads((Path(folder) / "spans.json").read_text(encoding="utf-8"))]
    rows = []
    say(f"one slide of {options.tiles} tiles on a running Ray, seconds\n  {'':<16}{'':<8}{'wall':>8}{'CPU':>8}")
    for step in (TILE, ACTORS, TASKS, PREDICT):
        for turn, chosen in (("cold", [0]), ("warm", range(1, options.turns))):
            found = [one for one in spans if one.step == step and one.turn in chosen]
            walls = [one.end - one.start for one in found]
            cpus = [run.cpu_at(one.end) - run.cpu_at(one.start) for one in found]
            rows.append(Row(step, turn, statistics.median(walls), statistics.median(cpus)))
            say(f"  {step:<16}{turn:<8}{rows[-1].seconds:>8.2f}{rows[-1].cpu_s:>8.2f}")
    if options.out:
        options.out.write_text(json.dumps([asdict(row) for row in rows], indent=1), encoding="utf-8")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--out", type=Path, help="write the figures as JSON")
    parser.add_argument("--tiles", type=int, default=300)
    parser.add_argument("--turns", type=int, default=4, help="the first is cold")
    parser.add_argument("--run", type=Path, help=argparse.SUPPRESS)
    return parser.parse_args()


def run_turns(folder: Path, tiles: int, turns: int) -> Iterator[Span]:
    """Tile, embed and predict a slide of its own in each turn."""
    with session():
        model = _publish(folder / "model")
        for turn in range(turns):
            slide, store = folder / f"s{turn}.svs", folder / f"store{turn}"
            make_slide(slide, tiles)
            start = time.time()
            artifact = run_tile(slide, store)
            yield Span(TILE, turn, start, time.time())
            vectors = []
            for step in (ACTORS, TASKS):
                start = time.time()
                embedded = _embed(artifact, store, step)
                yield Span(step, turn, start, time.time())
                vectors.append(embeddings_of(embedded, slide.stem)["vector"])
            if not vectors[0].equals(vectors[1]):
                sys.exit(f"turn {turn}: the vectors of actors and tasks differ")
            start = time.time()
            predicted = _predict(slide, folder / f"predicted{turn}", model)
            yield Span(PREDICT, turn, start, time.time())
            if predicted.manifest.rows["tiles"] < tiles:
                sys.exit(f"turn {turn}: {predicted.manifest.rows['tiles']} tiles were predicted, not {tiles}")


def _embed(tiles: Artifact, store: Path, step: str) -> Artifact:
    name = step.rpartition(" ")[2]
    values = {"tiles": f"tile/{tiles.path.name}", "name": name, "run": {"store": str(store)}}
    config = embed.CONFIG.of(values)
    with patch.object(tile_stream, "suits_tasks", return_value=False) if step == ACTORS else nullcontext():
        return embed.run(config)


def _publish(store: Path) -> Path:
    """Train a model and publish it; return its folder."""
    demo.run(demo.CONFIG.load(SMOKE, [f"run.store={store}"]))
    values = {"model": "train/smoke-bleep", "index": "index/smoke-bleep", "out": str(store / "published")}
    publish.run(publish.CONFIG.of({**values, "run": {"store": str(store)}}))
    return store / "published"


def _predict(slide: Path, store: Path, model: Path) -> Artifact:
    values = {"slides": str(slide.with_suffix(".csv")), "model": str(model), "run": {"store": str(store)}}
    tiling = {"stride": MPP * SIDE, "min_tissue": 0.0, "focus_tiles": 0}  # the tiles of the other steps
    return predict.run(predict.CONFIG.of({**values, "tile": tiling}))


if __name__ == "__main__":
    main()
