"""Cost of embedding 4 and 40 slides: peak memory, spilled bytes, wall and CPU time per tile.

The slides are one synthetic file under many names (hard links, so its pages are cached once). Each run embeds them with
the `tiny` encoder, in its own process with its own Ray. The rate is measured from the first commit record of a run to
its last, without the first unit; the time before it is the start-up, printed separately. Memory is the sum of PSS over
all processes, Ray's included (shared pages are divided among their users), sampled 4 times a second. The size of the
object store and its spilled bytes are reported by Ray's node manager.
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
MAX_GROWTH = 0.10
TIMEOUT_S = 300.0


@dataclass(frozen=True)
class Row:
    """Figures of one run."""

    slides: int
    readers: int
    tiles: int
    start_s: float
    """From the call of the step, with Ray running, to the first commit."""
    wall_us: float
    """Per tile, without the first unit."""
    cpu_us: float
    peak_mb: float
    """Sum of the PSS of all processes."""
    store_mb: float
    """Peak size of Ray's object store."""
    spilled: int
    """Bytes."""


def main() -> None:
    """Draw and tile the slides, embed few and many in turns, and print the ratios."""
    options = _options()
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        folder = Path(name)
        slide_file = folder / "slide_file.svs"
        make_slide(slide_file, options.tiles)
        with session():
            tiles = {count: _tiled(slide_file, folder, count) for count in (FEW, MANY)}
        rows = []
        for readers, rounds in ((0, options.rounds), (1, options.separate_rounds)):
            where = f"{readers} separate readers" if readers else "readers within the encoders"
            _print(f"\n{where}; units of {options.unit_tiles}, {options.encoders} encoders")
            columns = f"{'slides':>6}{'tiles':>9}{'start s':>9}{'us/tile':>9}{'CPU us':>8}{'PSS MB':>9}{'store MB':>10}"
            _print(f"  {columns}  spilled")
            found = []
            for _ in range(rounds):
                for count in (FEW, MANY):
                    found.append(_run(tiles[count], folder, options, slides=count, readers=readers))
                    _print_row(found[-1])
            _print_ratios(found)
            rows += found
    if options.out:
        options.out.write_text(json.dumps([asdict(row) for row in rows], indent=1), encoding="utf-8")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--out", type=Path, help="write the figures as JSON")
    parser.add_argument("--tiles", type=int, default=600, help="minimum tiles of a slide")
    parser.add_argument("--unit-tiles", type=int, default=128)
    parser.add_argument("--encoders", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--rounds", type=int, default=5, help="interleaved rounds of few and many slides")
    parser.add_argument("--separate-rounds", type=int, default=1, help="the same with separate readers")
    parser.add_argument("--folder", help="folder of the slides; by default the folder of temporary files")
    return parser.parse_args()


def _print(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def _tiled(slide_file: Path, folder: Path, count: int) -> Artifact:
    """Link the slide under `count` names, and tile all of them."""
    slides, table = folder / f"slides{count}", folder / f"slides{count}.csv"
    slides.mkdir()
    names = [f"s{number:03d}" for number in range(count)]
    for name in names:
        os.link(slide_file, slides / f"{name}.svs")
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
    """Embed in a separate process, and return the figures."""
    shutil.rmtree(folder / "store" / "embed", ignore_errors=True)
    run = {"store": str(folder / "store"), "encoders": options.encoders, "readers": readers}
    config = {
        "tiles": f"tile/{tiles.path.name}",
        "encoder": {"name": "tiny"},
        "unit_tiles": options.unit_tiles,
        "run": run,
    }
    out = folder / "out.json"
    arguments = {"config": config, "out": str(out)}
    ran = watch([sys.executable, str(HERE / "bench_scale_run.py"), json.dumps(arguments)], TIMEOUT_S)
    figures = json.loads(out.read_text(encoding="utf-8"))
    (first, first_rows), *rest = figures["commits"]
    last = figures["commits"][-1][0]
    count = sum(rows for _, rows in rest)
    return Row(
        slides,
        readers,
        count + first_rows,
        start_s=first - figures["start"],
        wall_us=(last - first) / count * 1e6,
        cpu_us=(ran.cpu_at(last) - ran.cpu_at(first)) / count * 1e6,
        peak_mb=ran.peak_bytes / 1e6,
        store_mb=figures["store_bytes"] / 1e6,
        spilled=figures["spilled_bytes"],
    )


def _print_row(row: Row) -> None:
    _print(
        f"  {row.slides:>6}{row.tiles:>9}{row.start_s:>9.1f}{row.wall_us:>9.0f}{row.cpu_us:>8.0f}{row.peak_mb:>9.0f}"
        f"{row.store_mb:>10.2f}  {row.spilled} bytes"
    )


def _print_ratios(rows: list[Row]) -> None:
    """Print the figures of many slides relative to few slides, and whether they grow by at most 10 %."""
    few, many = ([row for row in rows if row.slides == count] for count in (FEW, MANY))
    names = {"wall_us": "wall per tile", "cpu_us": "CPU per tile", "peak_mb": "peak PSS", "store_mb": "object store"}
    for measure, name in names.items():
        ratios = [getattr(b, measure) / max(getattr(a, measure), 1e-9) for a, b in zip(few, many, strict=True)]
        ratio = statistics.median(ratios)
        missed = "" if ratio <= 1 + MAX_GROWTH else ", MISSED"
        spread = f"{min(ratios):.3f} to {max(ratios):.3f} over {len(ratios)} rounds"
        _print(
            f"  {ratio:6.3f} {name} at {MANY} slides over {FEW} ({spread}; goal at most {1 + MAX_GROWTH:.2f}{missed})"
        )
    spilled = sum(row.spilled for row in rows)
    _print(f"  {spilled} bytes spilled in total (goal 0{', MISSED' if spilled else ''})")


if __name__ == "__main__":
    main()
