"""Files that raystp reads in no table or slide: PyTorch files, pickles, archives, arrays and text.

A pickle is never loaded. `pickletools` lists the names that its opcodes would import, which runs none of them.
"""

import io
import pickle
import pickletools
import re
import zipfile
from typing import Any

import numpy as np

from raystp.encoders.weights import PICKLE_SUFFIXES
from raystp.errors import some
from raystp.steps.inspect.report import Inspection
from raystp.storage import StoragePath

MAX_PICKLE = 32 << 20
"""Bytes of a pickle whose opcodes are listed."""
HEAD = 4096
MAX_LINE = 120
_ZIP, _GZIP, _NUMPY = b"PK\x03\x04", b"\x1f\x8b", b"\x93NUMPY"
_PROTOCOLS = {bytes([0x80, number]) for number in range(2, pickle.HIGHEST_PROTOCOL + 1)}
"""First bytes of a pickle of protocol 2 and later; older ones have none of their own."""
_PICKLES = (".pkl", ".pickle", ".joblib")
_TENSORS = re.compile(
    r"collections\.OrderedDict|torch\.(storage\.)?\w+Storage|torch\._(utils|tensor)\._rebuild_\w+"
    r"|torch\.(Size|device|bool|b?float\w*|u?int\w*|complex\w*)"
)
"""Names in the pickle of a file that holds only tensors; others of torch may run code."""
_UNOPENED = (
    "raystp opens no pickle, which can run code: save weights as safetensors and features as h5, where you trust it"
)
_ARRAYS = (
    "raystp reads such arrays as embeddings of genes alone (text.table of train), others in parquet, h5ad, safetensors"
)
_SETS = "`text.sets` of train, as sets of genes"


def report_of_other(path: StoragePath) -> Inspection | None:
    """Return what a file is, from its first bytes; None if they say nothing."""
    with path.open() as file:
        head = bytes(file.read(HEAD))
    if not head:
        return Inspection(str(path), "empty file", problem="it has 0 bytes")
    if head.startswith(_ZIP):
        return _archive(path)
    if head.startswith(_NUMPY):
        return _array(path, head)
    if head[:2] in _PROTOCOLS or path.name.endswith(_PICKLES):
        return Inspection(str(path), "pickle", problem=_UNOPENED, facts={"bytes": path.size()})
    if head.startswith(_GZIP):
        problem = "raystp reads tables and matrices in gzip alone; unpack others"
        return Inspection(str(path), "gzip file", problem=problem)
    return _text(path, head)


def _archive(path: StoragePath) -> Inspection:
    """Return what a zip archive is, from its table of names; a PyTorch file is one with a pickle in it."""
    try:
        with path.open() as opened, zipfile.ZipFile(opened) as archive:
            names = archive.namelist()
            found = next((one for one in archive.infolist() if one.filename.endswith("data.pkl")), None)
            content = archive.read(found) if found is not None and found.file_size <= MAX_PICKLE else b""
    except Exception as error:  # noqa: BLE001 -- a damaged archive makes zipfile and its codecs raise almost anything
        return Inspection(str(path), "zip archive", problem=f"it is damaged ({error})")
    if found is not None:
        return _pytorch(path, content, len(names))
    if names and all(name.endswith(".npy") for name in names):
        return Inspection(str(path), "NumPy archive", problem=_ARRAYS, facts={"entries": names})
    return Inspection(str(path), "zip archive", problem="archives are not read; unpack it", facts={"entries": names})


def _pytorch(path: StoragePath, content: bytes, entries: int) -> Inspection:
    """Return whether a PyTorch file holds only tensors, by the names in its pickle."""
    kind = "PyTorch file (tensors and a pickle, which was not opened)"
    facts: dict[str, Any] = {"entries": entries}
    try:
        facts["names in its pickle"] = named = sorted(_imported(content))
    except Exception as error:  # noqa: BLE001 -- pickletools raises many kinds for damaged bytes
        problem = f"its pickle is damaged or too large ({type(error).__name__}). {_UNOPENED}"
        return Inspection(str(path), kind, problem=problem, facts=facts)
    others = [name for name in named if not _TENSORS.fullmatch(name)]
    if others:
        return Inspection(str(path), kind, problem=f"its pickle names {some(others)}. {_UNOPENED}", facts=facts)
    if not path.name.endswith(PICKLE_SUFFIXES):
        problem = f"the name of a weights file ends in .safetensors, {', '.join(PICKLE_SUFFIXES)}"
        return Inspection(str(path), kind, problem=problem, facts=facts)
    return Inspection(str(path), kind, "`weights` of an encoder, as tensors alone", facts=facts)


def _imported(content: bytes) -> set[str]:
    """Return `module.name` of each object that a pickle would import; nothing is imported."""
    found: set[str] = set()
    texts: list[str] = []
    for opcode, argument, _ in pickletools.genops(io.BytesIO(content)):
        if opcode.name in {"GLOBAL", "INST"}:
            found.add(str(argument).replace(" ", "."))
        elif opcode.name == "STACK_GLOBAL":
            found.add(".".join(texts[-2:]))
        elif isinstance(argument, str):
            texts = [*texts[-1:], argument]
    return found


def _array(path: StoragePath, head: bytes) -> Inspection:
    """Return the shape and type of a NumPy array, from its header."""
    stream = io.BytesIO(head)
    try:
        version = np.lib.format.read_magic(stream)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, _, kind = read(stream)
    except ValueError as error:
        return Inspection(str(path), "NumPy array", problem=f"its header is damaged ({error})")
    problem = _UNOPENED if kind.hasobject else _ARRAYS
    return Inspection(str(path), "NumPy array", problem=problem, facts={"shape": list(shape), "type": str(kind)})


def _text(path: StoragePath, head: bytes) -> Inspection | None:
    """Return what a text is; None for other bytes."""
    try:
        text = head.decode()
    except UnicodeDecodeError as error:
        if error.start <= HEAD - 4:  # not a character that the end of `head` cuts
            return None
        text = head[: error.start].decode()
    if "\0" in text:
        return None
    if path.name.lower().endswith(".geojson"):
        return Inspection(str(path), "GeoJSON, such as outlines of tissue", "`masks` of tile, which takes its folder")
    facts = {"first line": text.partition("\n")[0][:MAX_LINE]}
    if path.name.lower().endswith(".gmt"):
        return Inspection(str(path), "gene sets (GMT)", _SETS, facts=facts)
    problem = (
        "its name is not that of a slide table (.csv, .tsv, .txt, .xlsx, .parquet); raystp reads other text only as a "
        "config (--config FILE), a list of genes (panel.file) or texts of genes (text.descriptions)"
    )
    return Inspection(str(path), "text file", problem=problem, facts=facts)
