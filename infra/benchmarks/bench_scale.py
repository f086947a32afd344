"""What embedding costs at 4 and at 40 slides: peaks of memory, bytes spilled, wall and CPU time per tile.

The slides are one drawn file under many names (hard links: its pages are cached once), embedded with the `tiny` encoder
through the steps, each run in a process of its own with a Ray of its own. The rate is the slope: from the first commit
record of a run to its last, first unit left out; the time until then is the start, shown apart. Memory is the sum of
the PSS of all its processes (shared pages are split among who shares them), Ray's own included, sampled 4 times a
second; the object store and what it spilled are what Ray's node manager says.
"""

import argparse
import csv
import json
import os
import shutil
import statistics
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path

from bench_embed_slide import MPP, SIDE, make_slide
from bench_scale_watch import watch

from raystp.artifacts import Artifact
from raystp.cluster.session import session
from raystp.steps.tile import step as tile

HERE = Path(__file__).parent
FEW, MANY = 4, 40
FLAT = 0.10
TIMEOUT_S = 300.0


@dataclass(frozen=True)
class Row:
    """What one run did."""

    slides: int
    readers: int
    tiles: int
    start_s: float
    """From the call of the step, Ray up, to the first commit."""
    wall_us: float
    """Per tile, first unit left out."""
    cpu_us: float
    peak_mb: float
    """Sum of the PSS of all processes."""
    store_mb: float
    """Most bytes that Ray's object store held."""
    spilled: int
    """Bytes."""


def main() -> None:
    """Draw and tile the slides, run few and many in turns, and print what the ratio is."""
    options = _options()
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        folder = Path(name)
        drawn = folder / "drawn.svs"
        make_slide(drawn, options.tiles)
        with session():
            tiles = {count: _tiled(drawn, folder, count) for count in (FEW, MANY)}
        rows = []
        for readers, rounds in ((0, options.rounds), (1, options.apart_rounds)):
            where = f"{readers} readers apart" if readers else "readers within the encoders"
            _say(f"\n{where}; units of {options.unit_tiles}, {options.encoders} encoders")
            columns = f"{'slides':>6}{'tiles':>9}{'start s':>9}{'us/tile':>9}{'CPU us':>8}{'PSS MB':>9}{'store MB':>10}"
            _say(f"  {columns}  spilled")
            found = []
            for _ in range(rounds):
                for count in (FEW, MANY):
                    found.append(_run(tiles[count], folder, options, slides=count, readers=readers))
                    _say_row(found[-1])
            _say_ratios(found)
            rows += found
    if options.out:
        options.out.write_text(json.dumps([asdict(row) for row in rows], indent=1), encoding="utf-8")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--out", type=Path, help="write the figures as JSON")
    parser.add_argument("--tiles", type=int, default=600, help="tiles of a slide, at least")
    parser.add_argument("--unit-tiles", type=int, default=128)
    parser.add_argument("--encoders", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--rounds", type=int, default=5, help="interleaved rounds of few and many slides")
    parser.add_argument("--apart-rounds", type=int, default=1, help="the same with readers apart")
    parser.add_argument("--folder", help="where the slide is drawn; by default the folder of temporary files")
    return parser.parse_args()


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def _tiled(drawn: Path, folder: Path, count: int) -> Artifact:
    """Link the slide under so many names, and tile all of them."""
    slides, table = folder / f"slides{count}", folder / f"slides{count}.csv"
    slides.mkdir()
    names = [f"s{number:03d}" for number in range(count)]
    for name in names:
        os.link(drawn, slides / f"{name}.svs")
    with table.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(("slide", "path", "patient", "mpp"))
        writer.writerows((name, f"{slides.name}/{name}.svs", name, MPP) for name in names)
    config = {
        "name": f"of{count}",
        "slides": str(table),
        "tile_um": MPP * SIDE,
        "tile_px": SIDE,
        "min_tissue": 0.0,
        "focus_tiles": 0,
        "run": {"store": str(folder / "store")},
    }
    return tile.run(tile.CONFIG.of(config))


def _run(tiles: Artifact, folder: Path, options: argparse.Namespace, *, slides: int, readers: int) -> Row:
    """Embed in a process of its own, and return what it took."""
    shutil.rmtree(folder / "store" / "embed", ignore_errors=True)
    run = {"store": str(folder / "store"), "encoders": options.encoders, "readers": readers}
    config = {
        "tiles": f"tile/{tiles.path.name}",
        "encoder": {"name": "tiny"},
        "unit_tiles": options.unit_tiles,
        "run": run,
    }
    out = folder / "out.json"
    told = {"config": config, "out": str(out)}
    ran = watch([sys.executable, str(HERE / "bench_scale_run.py"), json.dumps(told)], TIMEOUT_S)
    note = json.loads(out.read_text(encoding="utf-8"))
    (first, leading), *rest = note["marks"]
    last = note["marks"][-1][0]
    count = sum(rows for _, rows in rest)
    return Row(
        slides,
        readers,
        count + leading,
        start_s=first - note["began"],
        wall_us=(last - first) / count * 1e6,
        cpu_us=(ran.cpu_at(last) - ran.cpu_at(first)) / count * 1e6,
        peak_mb=ran.peak_bytes / 1e6,
        store_mb=note["store_bytes"] / 1e6,
        spilled=note["spilled_bytes"],
    )


def _say_row(row: Row) -> None:
    _say(
        f"  {row.slides:>6}{row.tiles:>9}{row.start_s:>9.1f}{row.wall_us:>9.0f}{row.cpu_us:>8.0f}{row.peak_mb:>9.0f}"
        f"{row.store_mb:>10.2f}  {row.spilled} bytes"
    )


def _say_ratios(rows: list[Row]) -> None:
    """Print many slides' figures as a part of few slides', and whether they are within 10 %."""
    few, many = ([row for row in rows if row.slides == count] for count in (FEW, MANY))
    words = {"wall_us": "wall per tile", "cpu_us": "CPU per tile", "peak_mb": "peak PSS", "store_mb": "object store"}
    for measure, name in words.items():
        ratios = [getattr(b, measure) / max(getattr(a, measure), 1e-9) for a, b in zip(few, many, strict=True)]
        ratio = statistics.median(ratios)
        flat = "" if ratio <= 1 + FLAT else ", MISSED"
        spread = f"{min(ratios):.3f} to {max(ratios):.3f} over {len(ratios)} rounds"
        _say(f"  {ratio:6.3f} {name} at {MANY} slides over {FEW} ({spread}; goal at most {1 + FLAT:.2f}{flat})")
    spilled = sum(row.spilled for row in rows)
    _say(f"  {spilled} bytes spilled in all (goal 0{', MISSED' if spilled else ''})")


if __name__ == "__main__":
    main()
