"""The images of a QuPath project (`project.qpproj`) as rows of a slide table.

A project is JSON: `images`, each with a `serverBuilder` that has the image's URI and an `imageName`. A server that
rotates or crops another one has it as its `builder`. Where a project was moved, QuPath looks for an image by its path
relative to the project's former folder, which `uri` names; then a file of the image's name beside the project is taken.
The format is QuPath's own and has no published page: this was written without a file of each version.
"""

from collections.abc import Mapping
from urllib.parse import SplitResult, unquote, urlsplit

import pydantic_core

from raystp.errors import LONGEST, ConfigError, some
from raystp.slides.inputs.ids import slide_ids
from raystp.slides.inputs.schemes import Adopted
from raystp.storage import StoragePath
from raystp.storage.text_files import TextRow, TextTable, decode_text

SUFFIX = ".qpproj"
MAX_BYTES = 256 << 20
"""Bytes of a project file at most; one image takes about 2 KB."""
MAX_BUILDERS = 20
"""Servers inside servers: rotated, cropped, and so on."""


def is_project(name: str) -> bool:
    """Return whether a file has the suffix of a QuPath project."""
    return name.lower().endswith(SUFFIX)


def read_project(path: StoragePath, base: StoragePath) -> Adopted:
    """Return the project's images as a table with slide, path and patient; relative places start from `base`.

    Raises ConfigError for a file that is no project, for one without images, and for an image without a URI.
    """
    project = _parse(path)
    images = project.get("images")
    if not isinstance(images, list) or not images:
        msg = (
            f"{path} has no `images`: expected a QuPath project with at least one image; add one in QuPath and save it"
        )
        raise ConfigError(msg)
    former = _folder_of(project.get("uri"))
    rows: dict[str, str] = {}
    changed, again = [], []
    for number, image in enumerate(images, 1):
        uri, kinds = _uri(image, f"{path}: image {number} of {len(images)}")
        place = _place(uri, former, base)
        name = str(image.get("imageName") or place)
        changed += [name] if kinds else []
        again += [name] if place in rows else []
        rows.setdefault(place, name)
    ids = slide_ids(list(rows.values()))
    cells = [{"slide": one, "path": place, "patient": ""} for one, place in zip(ids, rows, strict=True)]
    table = TextTable(
        str(path), ",", ["slide", "path", "patient"], [TextRow(n, row) for n, row in enumerate(cells, 1)], []
    )
    return Adopted(table, "QuPath", tuple(_notes(len(rows), changed, again)))


def _notes(count: int, changed: list[str], again: list[str]) -> list[str]:
    notes = [f"{count} images of a QuPath project: their URIs as path, their names as slide"]
    if changed:
        notes.append(f"{some(changed)} are rotated or cropped in QuPath: the slides are read as they are stored")
    if again:
        notes.append(f"{some(again)} are further images of a file that is there already, and are left out")
    return notes


def _parse(path: StoragePath) -> Mapping[str, object]:
    if path.size() > MAX_BYTES:
        msg = f"{path} has {path.size():,} bytes, a QuPath project has {MAX_BYTES:,} at most; it was not read"
        raise ConfigError(msg)
    try:
        # It refuses half of a surrogate pair, which no table stores.
        project = pydantic_core.from_json(decode_text(path.read_bytes(), str(path), ConfigError))
    except ValueError as error:
        msg = f"{path} is not a QuPath project: it is no JSON ({str(error)[:LONGEST]}); save it again in QuPath"
        raise ConfigError(msg) from None
    if not isinstance(project, dict):
        msg = (
            f"{path} is not a QuPath project but JSON of type {type(project).__name__}; expected an object with images"
        )
        raise ConfigError(msg)
    return project


def _uri(image: object, where: str) -> tuple[str, list[str]]:
    """Return the URI of an image's file, and the kinds of servers around it, such as `rotated`."""
    builder = image.get("serverBuilder") if isinstance(image, dict) else None
    around: list[str] = []
    for _ in range(MAX_BUILDERS):
        if not isinstance(builder, dict):
            break
        if isinstance(builder.get("uri"), str) and builder["uri"]:
            return builder["uri"], around
        around.append(str(builder.get("builderType", "")))
        builder = builder.get("builder")
    msg = f"{where} has no `serverBuilder.uri`, which names its file: give its slides as a table with a column path"
    raise ConfigError(msg)


def _place(uri: str, former: str, base: StoragePath) -> str:
    """Return where an image is: its own path, else the same place relative to the moved project, else beside it."""
    parts = _split(uri)
    if parts.scheme not in ("", "file"):
        return uri
    path = _local(parts.path)
    if StoragePath.of(path).exists():
        return path
    moved = path.removeprefix(former) if former and path.startswith(former) else ""
    for relative in (moved, path.rpartition("/")[2]):
        if relative and (base / relative).exists():
            return (base / relative).uri
    return path


def _folder_of(uri: object) -> str:
    """Return the former folder of a project with a slash at its end; empty where the file does not state it."""
    if not isinstance(uri, str):
        return ""
    folder = _local(_split(uri).path).rpartition("/")[0]
    return f"{folder}/" if folder else ""


def _split(uri: str) -> SplitResult:
    """Return the parts of a URI; a text that is none, such as `file://[`, is a path."""
    try:
        return urlsplit(uri)
    except ValueError:
        return SplitResult("", "", uri, "", "")


def _local(path: str) -> str:
    """Return the path of a file URI; that of Windows (`/C:/slides/a.svs`) keeps its drive and loses its slash."""
    plain = unquote(path)
    return plain[1:] if plain[2:3] == ":" and plain.startswith("/") else plain
