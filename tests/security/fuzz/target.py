"""What is fuzzed: a reader, the sound files that are changed for it, and how they are changed.

One execution changes a sound file and reads it. It ends with a result, or with an error that raystp raises on purpose,
in a short message. Any other exception is a find. Folders are in memory (`scratch`), and nothing starts Ray.
"""

import contextlib
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from raystp.cluster.serving.asgi import RequestRefused
from raystp.errors import RaystpError

Change = Callable[[bytes, np.random.Generator], bytes]
ChangeFile = Callable[[Path, bytes, np.random.Generator], object]
"""Write a file anew, from its sound content."""
Execute = Callable[[np.random.Generator], object]
"""Change a sound file and read it."""
Make = Callable[[], Sequence[bytes]]
"""Make the sound files, of which one is changed."""
Prepare = Callable[[Path], Execute]
"""Write the sound files into a folder."""

MAX_MESSAGE = 4000
"""Characters of an error's message at most: it may name a few values of a file, not the file."""

REFUSED = (RaystpError, RequestRefused)


@dataclass(frozen=True)
class Target:
    """One reader under test."""

    name: str
    group: str
    """What kind of files it reads, as the table of results has them."""
    prepare: Prepare
    share: int = 1
    """Executions, relative to those of the other targets: cheap readers of many forms get more."""


@dataclass(frozen=True)
class Find:
    """An execution that ended in another way than with a result or an error raised on purpose."""

    target: str
    seed: int
    what: str


@contextlib.contextmanager
def scratch() -> Iterator[Path]:
    """Yield a folder, in memory where the system has one there, for files that are written at every execution."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as folder:
        yield Path(folder)


def seeded(target: str, seed: int) -> np.random.Generator:
    """Return the random numbers of one execution, by which it can be repeated."""
    return np.random.Generator(np.random.SFC64([seed, *target.encode()]))


def outcome(execute: Execute, rng: np.random.Generator) -> tuple[str, str]:
    """Execute once; return (`read` | `refused` | `find`, what was found)."""
    try:
        execute(rng)
    except REFUSED as error:
        length = len(str(error))
        if 0 < length <= MAX_MESSAGE:
            return "refused", ""
        return "find", f"{type(error).__name__} with a message of {length} characters: {str(error)[:200]}"
    except Exception as error:  # noqa: BLE001 -- what fuzzing looks for
        return "find", f"{type(error).__name__}: {str(error)[:300]} at {_innermost(error)}"
    return "read", ""


def known(content: bytes) -> Make:
    """Return the `make` of a target with one sound file."""
    return lambda: [content]


def of_bytes(make: Make, change: Change, read: Callable[[bytes], object]) -> Prepare:
    """Return the `prepare` of a reader of bytes."""

    def prepare(_: Path) -> Execute:
        contents = make()
        return lambda rng: read(change(contents[int(rng.integers(len(contents)))], rng))

    return prepare


def of_file(name: str, make: Make, change: Change, read: Callable[[Path], object]) -> Prepare:
    """Return the `prepare` of a reader of one file of this name."""

    def prepare(folder: Path) -> Execute:
        file, contents = folder / name, make()

        def execute(rng: np.random.Generator) -> object:
            file.write_bytes(change(contents[int(rng.integers(len(contents)))], rng))
            return read(file)

        return execute

    return prepare


def of_folder(write: Callable[[Path], object], change: ChangeFile, read: Callable[[Path], object]) -> Prepare:
    """Return the `prepare` of a reader of a folder of several files."""

    def prepare(folder: Path) -> Execute:
        write(folder)
        files = {file: file.read_bytes() for file in sorted(folder.rglob("*")) if file.is_file()}
        names = list(files)

        def execute(rng: np.random.Generator) -> object:
            file = names[int(rng.integers(len(names)))]
            try:
                change(file, files[file], rng)
                return read(folder)
            finally:
                file.write_bytes(files[file])

        return execute

    return prepare


def _innermost(error: BaseException) -> str:
    """Return the last two places in the code, without the folders before them."""
    places, trace = [], error.__traceback__
    while trace is not None:
        places.append(f"{'/'.join(Path(trace.tb_frame.f_code.co_filename).parts[-3:])}:{trace.tb_lineno}")
        trace = trace.tb_next
    own = [place for place in places if place.startswith("raystp/") or "/raystp/" in place]
    return " <- ".join(dict.fromkeys([places[-1], *own[-1:]]))
