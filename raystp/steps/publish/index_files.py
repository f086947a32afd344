"""The published form of a reference index: every row is compared, and rows name no patient, section or slide.

FAISS files are left out. FAISS's reader can be crashed by crafted files, and a published folder may come from anybody.
"""

import shutil
from collections.abc import Mapping
from typing import Any

import pyarrow as pa

from raystp.artifacts import Artifact
from raystp.digests import digest
from raystp.errors import ModelError
from raystp.impute.hashed_names import hash_name
from raystp.index.description import VERSION, VERSION_WITH_UNMEASURED, IndexDescription, ShardRecord
from raystp.index.files import file_names
from raystp.index.reference import ROWS, ROWS_FILE
from raystp.storage import StoragePath

KEPT_NOTES = ("vectors", "distance")
"""Notes of an index's manifest that a prediction reads."""


def published_index(index: Artifact, folder: StoragePath, salt: str) -> dict[str, Any]:
    """Write the files of an index into a folder; return its description and notes, as plain JSON values.

    Raises ModelError for an index of version 1, whose vectors are in a FAISS file.
    """
    description: IndexDescription = index.manifest.notes["bank"]
    if description["version"] not in {VERSION, VERSION_WITH_UNMEASURED}:
        msg = f"{index.path} is an index of version {description['version']}: run `raystp index` again, then publish"
        raise ModelError(msg)
    shards: list[ShardRecord] = [{**shard, "index": None} for shard in description["shards"]]
    for name in file_names(shards):
        with (index.path / name).local() as local:
            (folder / name).write_file(lambda path, source=local: shutil.copyfile(source, path))  # type: ignore[misc]
    (folder / ROWS_FILE).write_table(_rows((index.path / ROWS_FILE).read_table(), salt))
    notes = index.manifest.notes
    return {
        "bank": {
            **_description(description, salt),
            "shards": shards,
            "rows": {"file": ROWS_FILE, "sha256": digest(folder / ROWS_FILE)},
        },
        "patients": sorted(hash_name(name, salt) for name in notes["patients"]),
        "slides": sorted(hash_name(name, salt) for name in notes["slides"]),
        **{key: notes[key] for key in KEPT_NOTES if key in notes},
    }


def _rows(rows: pa.Table, salt: str) -> pa.Table:
    """Return the table of rows with hashed sections and patients, numbered spots and no further column."""
    hashed = {name: [hash_name(one, salt) for one in rows[name].to_pylist()] for name in ("section", "patient")}
    numbers = rows["row"].to_pylist()
    columns = [numbers, hashed["section"], [str(one) for one in numbers], hashed["patient"], rows["length"].to_pylist()]
    arrays = [pa.array(column, field.type) for column, field in zip(columns, ROWS, strict=True)]
    return pa.Table.from_arrays(arrays, schema=ROWS)


def _description(description: IndexDescription, salt: str) -> dict[str, Any]:
    """Return the description of an exact index of the same rows, without names."""
    values: Mapping[str, Any] = description
    unmeasured = {hash_name(section, salt): genes for section, genes in values.get("unmeasured", {}).items()}
    return {
        "version": values["version"],
        "metric": values["metric"],
        "kind": "exact",
        "why": "published: every row is compared",
        "joint": values["joint"],
        "genes": list(values["genes"]),
        "want": {**values["want"], "kind": "exact"},
        "lists": 0,
        "quantizer": None,
        "patients": sorted(hash_name(name, salt) for name in values["patients"]),
        "sections": sorted(hash_name(name, salt) for name in values["sections"]),
        "effort": {},
        "recall": None,
        "below_target": False,
        "lineage": [],
        **({"unmeasured": unmeasured} if unmeasured else {}),
    }
