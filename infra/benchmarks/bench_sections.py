"""Time and memory to read one section of 2 um bins of Visium HD, and one of transcripts of Xenium.

    python infra/benchmarks/bench_sections.py [--bins 10000000] [--transcripts 100000000] [--folder /tmp]

The files are made first (`bench_sections_made.py`), and deleted at the end. Each section is read and written as h5ad in
a process of its own, as `raystp spots` does on one core. Memory is the peak of that process (its resident set), which
has the libraries too.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from bench_sections_made import write_visium_hd, write_xenium

from raystp.expression.readers.options import SectionOptions
from raystp.expression.readers.registry import read
from raystp.expression.readers.source import SectionSource
from raystp.expression.schema import write_section
from raystp.storage import StoragePath

LIMIT_GB = 2.0
MADE = {"visium_hd": write_visium_hd, "xenium": write_xenium}


def main() -> None:
    """Make each section, read it in another process, and print what that took."""
    options = _options()
    if options.read:
        _say(json.dumps(_read(*options.read)))
        return
    sizes = {"visium_hd": options.bins, "xenium": options.transcripts}
    figures = {}
    for layout, size in sizes.items():
        if not size:
            continue
        with tempfile.TemporaryDirectory(dir=options.folder) as name:
            section = Path(name) / "section"
            began = time.perf_counter()
            MADE[layout](section, size)
            bytes_written = sum(path.stat().st_size for path in section.rglob("*") if path.is_file())
            _say(f"{layout}: {size:,} made, {bytes_written / 1e9:.1f} GB, in {time.perf_counter() - began:.0f} s")
            command = [sys.executable, __file__, "--read", layout, str(section)]
            found = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        figures[layout] = found | {"size": size, "gb": bytes_written / 1e9}
        missed = ", MISSED" if found["peak_gb"] > LIMIT_GB else ""
        _say(
            f"{layout}: {found['spots']:,} squares x {found['genes']:,} genes in {found['seconds']:.0f} s "
            f"({found['cpu_s']:.0f} CPU-s), peak {found['peak_gb']:.2f} GB (goal {LIMIT_GB:g}{missed})"
        )
    if options.out:
        Path(options.out).write_text(json.dumps(figures, indent=1))


def _read(layout: str, folder: str) -> dict[str, float]:
    """Read and write one section in this process."""
    chosen = SectionOptions(bin_um=2.0 if layout == "visium_hd" else None)
    path = StoragePath.of(folder)
    began = time.perf_counter()
    section, _ = read(SectionSource("S1", "S1", "P1", layout, path, image_px=(200_000, 200_000), options=chosen))
    write_section(path / "section.h5ad", section)
    seconds = time.perf_counter() - began
    used = resource.getrusage(resource.RUSAGE_SELF)
    return {
        "spots": section.n_obs,
        "genes": section.n_vars,
        "seconds": seconds,
        "cpu_s": used.ru_utime + used.ru_stime,
        "peak_gb": used.ru_maxrss * 1024 / 1e9,
    }


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--bins", type=int, default=10_000_000, help="2 um bins of Visium HD; 0: none")
    parser.add_argument("--transcripts", type=int, default=100_000_000, help="transcripts of Xenium; 0: none")
    parser.add_argument("--folder", help="where the files are made, some GB; the default is the system's")
    parser.add_argument("--out", help="file for the figures, as JSON")
    parser.add_argument("--read", nargs=2, metavar=("LAYOUT", "FOLDER"), help="read this section, in this process")
    return parser.parse_args()


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
