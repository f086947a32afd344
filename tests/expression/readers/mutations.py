"""Seeded faults in the files of a section: cells, lines and bytes of text; groups and values of HDF5."""

import json
from pathlib import Path

import h5py
import numpy as np

TEXTS = ["", "nan", "NA", "-1", "0", "1e400", "inf", "x", "é", "1,5", "1;2", '"', "\t", "\x00", "9" * 30, "0x1", "TRUE"]
VALUES: list[object] = [
    None,
    "text",
    "0.5",
    b"bytes",
    -1.0,
    0.0,
    float("nan"),
    float("inf"),
    1e300,
    [],
    [1.0],
    ["0.5"],
    [1.0, 2.0],
    {},
    True,
]


def mutate_text(content: bytes, rng: np.random.Generator) -> bytes:
    """Return a text with one fault: bytes, a line, a column or a cell."""
    kind = rng.integers(7)
    if kind == 0:
        return content[: int(rng.integers(len(content) + 1))]
    if kind == 1:
        changed = bytearray(content)
        for position in rng.integers(len(content), size=3):
            changed[position] = int(rng.integers(256))
        return bytes(changed)
    lines = content.decode("utf-8", "replace").split("\n")
    row = int(rng.integers(len(lines)))
    if kind == 2:
        lines[row:row] = [lines[row]] if rng.random() < 0.5 else []
        return "\n".join(lines[: row + 1] + lines[row + 2 :]).encode()
    separator = "\t" if "\t" in lines[0] else ","
    cells = [line.split(separator) for line in lines]
    column = int(rng.integers(max(1, len(cells[0]))))
    text = TEXTS[int(rng.integers(len(TEXTS)))]
    if kind == 3:
        cells = [[cell for number, cell in enumerate(line) if number != column] for line in cells]
    elif kind == 4:
        cells = [[text if number == column else cell for number, cell in enumerate(line)] for line in cells]
    elif column < len(cells[row]):
        cells[row][column] = text
    return "\n".join(separator.join(line) for line in cells).encode()


def mutate_json(content: bytes, rng: np.random.Generator) -> bytes:
    """Return a JSON object with one value replaced or removed."""
    values = json.loads(content)
    if rng.random() < 0.2:
        return mutate_text(content, rng)
    name = list(values)[int(rng.integers(len(values)))]
    value = VALUES[int(rng.integers(len(VALUES)))]
    values[name] = value.decode() if isinstance(value, bytes) else value
    return json.dumps(values).encode()


def mutate_hdf5(path: Path, rng: np.random.Generator) -> str:
    """Remove, replace, cut or fill one object of an HDF5 file; return what was done."""
    names: list[str] = []
    with h5py.File(path, "r+") as file:
        file.visit(names.append)
        name = names[int(rng.integers(len(names)))]
        kind = int(rng.integers(6))
        item = file[name]
        if kind == 0:
            del file[name]
        elif kind == 1:
            _replace(file, name, VALUES[int(rng.integers(len(VALUES)))])
        elif kind == 2:
            item.attrs["encoding-type"] = ["array", "dict", "csr_matrix", "dataframe", "x", "null"][
                int(rng.integers(6))
            ]
        elif isinstance(item, h5py.Dataset) and item.shape:
            _change_values(file, name, item[()], kind, rng=rng)
        elif len(item.attrs):
            del item.attrs[list(item.attrs)[int(rng.integers(len(item.attrs)))]]
    return f"{name} {kind}"


def _replace(file: h5py.File, name: str, value: object) -> None:
    attrs = dict(file[name].attrs)
    del file[name]
    if value is None or value == {}:
        file.create_group(name)
    else:
        file[name] = value
    for key, attr in attrs.items():
        file[name].attrs[key] = attr


def _change_values(file: h5py.File, name: str, values: np.ndarray, kind: int, *, rng: np.random.Generator) -> None:
    attrs = dict(file[name].attrs)
    if kind == 3:
        values = values[: int(rng.integers(len(values) + 1))]
    elif kind == 4 and values.dtype.kind in "iuf":
        values = values.astype(np.float64)
        values.reshape(-1)[int(rng.integers(values.size))] = [np.nan, np.inf, -1, 0.5, 1e300, 2**40][
            int(rng.integers(6))
        ]
    elif values.dtype.kind in "iuf":
        values = np.full_like(values, [0, 1, -1, 7][int(rng.integers(4))] if values.dtype.kind != "u" else 1)
    else:
        values = np.asarray([values[0]] * len(values), dtype=h5py.string_dtype() if values.dtype.kind == "O" else None)
    del file[name]
    file.create_dataset(name, data=values, dtype=h5py.string_dtype() if values.dtype.kind == "O" else None)
    for key, attr in attrs.items():
        file[name].attrs[key] = attr
