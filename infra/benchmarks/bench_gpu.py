"""What one GPU does: encoders, slides to vectors, training, search, JPEG. At most 8 minutes.

    python infra/benchmarks/bench_gpu.py [--out gpu.json] [--device cuda] [--slide FILE.svs] [--sections memory slide]
    python infra/benchmarks/bench_gpu.py --device cpu --quick

Each section is a process of its own. One that fails, hangs, or lacks a package says why, and the others go on. It needs
torch and timm; the section `slide` needs raystp's own packages too, and `search` FAISS. `--quick` has sizes for a CPU:
it shows that the code runs, and its figures mean nothing. The encoders have the published shapes and random weights.
"""

import argparse
import importlib
import json
import platform
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path

import torch
from gpu.figures import Figure, Figures, Options, read_figures, say

ROOT = Path(__file__).parents[2]

SECTIONS = {"copies": 30.0, "memory": 240.0, "slide": 120.0, "training": 90.0, "search": 90.0, "jpeg": 40.0}
"""Section -> its time limit in seconds."""

LIMIT_S = 480.0
ABSENT = 3
"""Exit status of a section that lacks a package."""


def main() -> None:
    """Run the sections one after the other, or one of them in this process."""
    arguments = _arguments()
    options = Options(arguments.device, arguments.quick, arguments.compiler, arguments.slide)
    if arguments.section is not None:
        sys.exit(run_section(arguments.section, options, Path(arguments.out)))
    say(describe(options))
    ends, found = time.monotonic() + LIMIT_S * (3 if options.quick else 1), list[Figure]()
    with tempfile.TemporaryDirectory() as folder:
        for name in arguments.sections:
            limit_s = min(SECTIONS[name] * (4 if options.quick else 1), ends - time.monotonic())
            found += start_section(name, Path(folder) / f"{name}.json", limit_s)
    if arguments.out:
        values = {"machine": describe(options), "figures": [asdict(figure) for figure in found]}
        Path(arguments.out).write_text(json.dumps(values, indent=1), encoding="utf-8")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--out", help="write the figures as JSON")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--quick", action="store_true", help="sizes for a CPU; the figures mean nothing")
    parser.add_argument("--slide", help="an SVS at 0.5 um/px; by default one is written")
    parser.add_argument("--compiler", default="inductor", help="backend of torch.compile; `none` leaves it out")
    parser.add_argument("--sections", nargs="*", default=list(SECTIONS), choices=SECTIONS)
    parser.add_argument("--section", choices=SECTIONS, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if torch.device(arguments.device).type == "cuda" and not torch.cuda.is_available():
        parser.error(f"torch {torch.__version__} sees no CUDA device: set --device cpu --quick")
    if arguments.compiler == "none":
        arguments.compiler = None
    elif arguments.quick:
        arguments.compiler = "eager"  # traced, and not compiled, which takes minutes
    return arguments


def start_section(name: str, file: Path, limit_s: float) -> list[Figure]:
    """Run a section in a process of its own; return its figures, and the reason where it did not end."""
    say(f"{name}:")
    began = time.monotonic()
    arguments = [one for one in sys.argv[1:] if one != "--out" and not one.startswith("--out=")]
    if "--out" in sys.argv:
        arguments.remove(sys.argv[sys.argv.index("--out") + 1])
    command = [sys.executable, str(Path(__file__)), *arguments, "--section", name, "--out", str(file)]
    try:
        if limit_s <= 0:
            raise subprocess.TimeoutExpired(command, limit_s)
        status = subprocess.run(command, timeout=limit_s, check=False).returncode
        reason = "" if status in (0, 1, ABSENT) else f"its process ended with status {status}"
    except subprocess.TimeoutExpired:
        reason = f"it took longer than {max(0, limit_s):.0f} s"
    found = read_figures(file)
    if reason:
        say(f"  not finished: {reason}")
        found.append(Figure(name, "not finished", None, reason))
    say(f"  ({time.monotonic() - began:.0f} s)")
    return found


def run_section(name: str, options: Options, file: Path) -> int:
    """Run a section in this process; return its exit status."""
    sys.path.insert(0, str(ROOT))
    figures = Figures(name, file)
    if options.quick:
        torch.set_num_threads(1)  # small networks, on cores that other work may use
    try:
        importlib.import_module(f"gpu.{name}").measure(options, figures)
    except ImportError as error:
        package = (error.name or "").partition(".")[0] or "a package"
        figures.skip("the rest", f"{package} is absent: {error}")
        return ABSENT
    except Exception as error:  # noqa: BLE001 -- the other sections go on
        text = str(error).strip().partition("\n")[0]
        figures.skip("the rest", f"{type(error).__name__}: {text}")
        return 1
    return 0


def describe(options: Options) -> str:
    """Return the device and the versions, as a line."""
    device = (
        torch.cuda.get_device_name(options.device) if options.on_cuda else f"CPU, {torch.get_num_threads()} threads"
    )
    quick = ", quick: the figures mean nothing" if options.quick else ""
    return f"{device}, torch {torch.__version__}, Python {platform.python_version()}{quick}"


if __name__ == "__main__":
    main()
