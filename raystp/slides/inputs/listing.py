"""Slide files of a folder, a glob, or a prefix of an object store, in sorted order and each slide once.

Files are chosen by the suffixes that the readers open. Hidden files, the data folders of MIRAX slides, further files
of a DICOM series, and artifacts of raystp below the folder are left out. So are PNG and JPEG beside files of scanners:
they are thumbnails or masks. A glob takes them if it matches no other slide, and then files of image patches (.h5).
"""

import glob
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from raystp.errors import ConfigError
from raystp.slides.inputs.ids import slide_ids
from raystp.storage import StoragePath

SCANNER_SUFFIXES = (
    ".svs",
    ".tif",
    ".tiff",
    ".btf",
    ".qptiff",
    ".ndpi",
    ".mrxs",
    ".scn",
    ".bif",
    ".svslide",
    ".vms",
    ".vmu",
    ".dcm",
)
PICTURE_SUFFIXES = (".png", ".jpg", ".jpeg")
"""Files that may be a slide or a picture of one."""
SUFFIXES = SCANNER_SUFFIXES + PICTURE_SUFFIXES
PATCH_SUFFIXES = (".h5", ".hdf5")
"""Files that may have image patches. Most such files have features or counts, so a folder of them has no slides."""

_SERIES = b"\x20\x00\x0e\x00UI"
"""DICOM's tag (0020,000E), the series of a file, with its type."""
_HEADER_BYTES = 1 << 16
_MAGIC = re.compile(r"[*?\[]")
_REMOTE_MAGIC = re.compile(r"[*\[]")
"""In a URI, `?` begins the query."""


@dataclass(frozen=True)
class FoundSlides:
    """Files of slides below `base`."""

    base: StoragePath
    names: list[str]
    """Paths relative to `base`, sorted."""
    notes: list[str]
    """What was left out, as sentences."""

    def paths(self) -> list[StoragePath]:
        """Return the path of each file."""
        return [self.base / (name if self.base.is_local else quote(name)) for name in self.names]

    def ids(self) -> list[str]:
        """Return the id of each slide; that of a folder with one DICOM slide and nothing else is the folder's name."""
        of_folder = Counter(name.rpartition("/")[0] for name in self.names)
        named = []
        for name in self.names:
            folder = name.rpartition("/")[0]
            is_alone = folder and of_folder[folder] == 1 and name.lower().endswith(".dcm")
            named.append(f"{folder}.dcm" if is_alone else name)
        return slide_ids(named)


def is_pattern(text: str) -> bool:
    """Return whether a text is a glob: it has `*`, `[`, or on this machine `?`, and no file has this very name."""
    is_local = "://" not in text
    return bool((_MAGIC if is_local else _REMOTE_MAGIC).search(text)) and not (is_local and Path(text).exists())


def is_slide_name(name: str) -> bool:
    """Return whether a file has a suffix of a slide."""
    return name.lower().endswith(SUFFIXES)


def is_patch_name(name: str) -> bool:
    """Return whether a file has a suffix of image patches."""
    return name.lower().endswith(PATCH_SUFFIXES)


def find_slides(text: str, *, store: str) -> FoundSlides:
    """Return the slide files of a folder, prefix or glob; those of the store itself are not slides.

    Raises ConfigError where there is none, with what is there instead.
    """
    base, found = _matches(text) if is_pattern(text) else (StoragePath.of(text), None)
    listed = base.files() if found is None else found
    visible = [name for name in listed if not _is_hidden(name)]
    names = [name for name in visible if is_slide_name(name)]
    if found is not None and not names:
        names = [name for name in visible if is_patch_name(name)]
    names = _outside(names, [*_artifacts(listed), *_inside(base, StoragePath.of(store))])
    scanned = [name for name in names if name.lower().endswith(SCANNER_SUFFIXES)]
    notes = []
    if scanned and len(scanned) < len(names):
        more = len(names) - len(scanned)
        notes.append(f"{more} PNG and JPEG files beside the {len(scanned)} slides are left out; a glob can name them")
    names = _once_each(base, scanned or names)
    if not names:
        kind = "glob matches" if found is not None else "folder has"
        others = sorted({Path(name).suffix.lower() or Path(name).name for name in listed})
        has = f"; its {len(listed)} files are {', '.join(others[:8])}" if listed else ""
        msg = f"slides: the {kind} no slide file, {StoragePath.of(text)}{has}; slides are {', '.join(SUFFIXES)}"
        raise ConfigError(msg)
    return FoundSlides(base, sorted(names), notes)


def _matches(text: str) -> tuple[StoragePath, list[str]]:
    """Return the folder before the first wildcard of a glob, and the matching files below it."""
    head, question_mark, query = (text, "", "") if "://" not in text else text.partition("?")
    magic = _MAGIC if "://" not in text else _REMOTE_MAGIC
    parts = head.split("/")
    first = next(number for number, part in enumerate(parts) if magic.search(part))
    base = StoragePath.of(("/".join(parts[:first]) or ("/" if first else ".")) + question_mark + query)
    pattern = "/".join(parts[first:])
    if base.is_local:
        names = glob.glob(pattern, root_dir=base.local_path, recursive=True)  # noqa: PTH207 -- it skips hidden files
        return base, sorted(name for name in names if (base.local_path / name).is_file())
    shape = re.compile(_expression(pattern))
    return base, [name for name in base.files() if shape.fullmatch(name)]


def _expression(pattern: str) -> str:
    """Return a glob as a regular expression, in which only `**/`, and `**` at the end, cross folders."""
    pieces = re.split(r"(\*\*/|(?<![^/])\*\*$|\*|\[!?[^\]]+\])", pattern)
    known = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*"}
    return "".join(
        known.get(one) or (one.replace("[!", "[^") if one.startswith("[") else re.escape(one)) for one in pieces
    )


def _is_hidden(name: str) -> bool:
    return any(part.startswith(".") or part == "__MACOSX" for part in name.split("/"))


def _artifacts(names: Iterable[str]) -> list[str]:
    """Return the folders below the listed one that have a manifest: results of raystp, with pictures of slides."""
    return [name.removesuffix("manifest.json") for name in names if name.endswith("/manifest.json")]


def _inside(base: StoragePath, store: StoragePath) -> list[str]:
    head = f"{str(base).rstrip('/')}/"
    return [f"{str(store).removeprefix(head)}/"] if str(store).startswith(head) else []


def _outside(names: list[str], folders: list[str]) -> list[str]:
    known = tuple(folders)
    return [name for name in names if not name.startswith(known)] if known else names


def _once_each(base: StoragePath, names: list[str]) -> list[str]:
    """Leave out the files of a slide of several files but one."""
    mirax = tuple(f"{name[: -len('.mrxs')]}/" for name in names if name.lower().endswith(".mrxs"))
    names = _outside(names, list(mirax))
    listed = {name.rpartition("/")[0] for name in names if name.lower().endswith((".vms", ".vmu"))}
    names = [n for n in names if not (n.rpartition("/")[0] in listed and n.lower().endswith(PICTURE_SUFFIXES))]
    series: set[tuple[str, bytes]] = set()
    kept = []
    for name in sorted(names):
        if name.lower().endswith(".dcm"):
            key = (name.rpartition("/")[0], _series(base, name))
            if key in series:
                continue
            series.add(key)
        kept.append(name)
    return kept


def _series(base: StoragePath, name: str) -> bytes:
    """Return the series of a DICOM file; empty if its header does not have it, or it is in an object store."""
    if not base.is_local:
        return b""
    try:
        with (base.local_path / name).open("rb") as file:
            head = file.read(_HEADER_BYTES)
    except OSError:
        return b""
    at = head.find(_SERIES)
    start = at + len(_SERIES) + 2
    return head[start : start + int.from_bytes(head[start - 2 : start], "little")] if at >= 0 else b""
