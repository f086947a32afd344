"""Sections of the size of real ones, written in parts: 2 um bins of Visium HD, and transcripts of Xenium."""

import json
from pathlib import Path

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

HD_GENES, XENIUM_GENES, CONTROLS = 18_085, 5_001, 500
VALUES_OF_BIN = 15
"""Genes with a count in a bin of 2 um on average."""
HD_MPP, BIN_UM = 0.27, 2.0
PART = 1_000_000
PIXEL_UM = 0.2125
PLANE_UM = (10_000.0, 20_000.0)


def write_visium_hd(outs: Path, bins: int) -> None:
    """Write a square of bins, turned by 3 degrees; four fifths of them are in tissue."""
    folder = outs / "binned_outputs" / "square_002um"
    (folder / "spatial").mkdir(parents=True)
    side = int(np.sqrt(bins))
    factors = {"bin_size_um": BIN_UM, "microns_per_pixel": HD_MPP, "spot_diameter_fullres": BIN_UM / HD_MPP}
    (folder / "spatial" / "scalefactors_json.json").write_text(json.dumps(factors))
    random = np.random.default_rng(0)
    writer: pq.ParquetWriter | None = None
    with h5py.File(folder / "filtered_feature_bc_matrix.h5", "w") as file:
        group = file.create_group("matrix")
        for name, values in _features(HD_GENES, 0).items():
            group[f"features/{name}"] = np.array([value.encode() for value in values])
        packed = {"maxshape": (None,), "chunks": (80_000,), "compression": "gzip", "compression_opts": 1}
        data = group.create_dataset("data", (0,), "i4", **packed)
        indices = group.create_dataset("indices", (0,), "i8", **packed)
        barcodes = group.create_dataset("barcodes", (0,), "S21", **packed)
        ends = [np.zeros(1, np.int64)]
        for first in range(0, side * side, PART):
            row, column = np.divmod(np.arange(first, min(first + PART, side * side)), side)
            inside = (row // 60 + column // 60) % 5 > 0
            names = [f"s_002um_{a:05d}_{b:05d}-1" for a, b in zip(row.tolist(), column.tolist(), strict=True)]
            table = _positions(names, inside, row, column)
            writer = writer or pq.ParquetWriter(folder / "spatial" / "tissue_positions.parquet", table.schema)
            writer.write_table(table)
            lengths = random.poisson(VALUES_OF_BIN, int(inside.sum()))
            count = int(lengths.sum())
            _append(indices, (HD_GENES * random.random(count) ** 3).astype(np.int64))
            _append(data, random.geometric(0.8, count).astype(np.int32))
            _append(barcodes, np.array(names, "S21")[inside])
            ends.append(np.cumsum(lengths) + ends[-1][-1])
        group.create_dataset("indptr", data=np.concatenate(ends), compression="gzip", compression_opts=1)
        group["shape"] = np.array([HD_GENES, len(barcodes)], np.int32)
    if writer is not None:
        writer.close()


def write_xenium(folder: Path, transcripts: int) -> None:
    """Write a bundle of transcripts on 10 x 20 mm, a fifth of them of low quality, and a cell for each hundred."""
    folder.mkdir(parents=True)
    (folder / "experiment.xenium").write_text(json.dumps({"pixel_size": PIXEL_UM, "analysis_sw_version": "made"}))
    (folder / "made_he_imagealignment.csv").write_text("1.28,.04,90\n-.04,1.28,60\n0,0,1\n")
    features = _features(XENIUM_GENES, CONTROLS)
    names = pa.array(features["name"])
    with h5py.File(folder / "cell_feature_matrix.h5", "w") as file:
        for name, values in features.items():
            file[f"matrix/features/{name}"] = np.array([value.encode() for value in values])
    random = np.random.default_rng(0)
    cells = transcripts // 100
    places = [random.uniform(0, side, cells) for side in PLANE_UM]
    ids = [f"aaaa{number:08d}-1" for number in range(cells)]
    pq.write_table(
        pa.table({"cell_id": ids, "x_centroid": places[0], "y_centroid": places[1]}), folder / "cells.parquet"
    )
    writer: pq.ParquetWriter | None = None
    for first in range(0, transcripts, PART):
        count = min(PART, transcripts - first)
        number = (len(names) * random.random(count) ** 2).astype(np.int32)
        table = pa.table(
            {
                "transcript_id": np.arange(first, first + count, dtype=np.uint64),
                "cell_id": pa.DictionaryArray.from_arrays(number % 97, pa.array(ids[:97])).cast(pa.string()),
                "feature_name": pa.DictionaryArray.from_arrays(number, names).cast(pa.string()),
                "x_location": random.uniform(0, PLANE_UM[0], count).astype(np.float32),
                "y_location": random.uniform(0, PLANE_UM[1], count).astype(np.float32),
                "z_location": random.uniform(0, 20, count).astype(np.float32),
                "qv": random.uniform(12.5, 50, count).astype(np.float32),
            }
        )
        writer = writer or pq.ParquetWriter(folder / "transcripts.parquet", table.schema)
        writer.write_table(table)
    if writer is not None:
        writer.close()


def _features(genes: int, controls: int) -> dict[str, list[str]]:
    names = [f"GENE{number}" for number in range(genes)] + [f"NegControlProbe_{n:05d}" for n in range(controls)]
    kinds = ["Gene Expression"] * genes + ["Negative Control Probe"] * controls
    return {"id": [f"ENSG{number:011d}" for number in range(len(names))], "name": names, "feature_type": kinds}


def _positions(names: list[str], inside: np.ndarray, row: np.ndarray, column: np.ndarray) -> pa.Table:
    angle, step = np.deg2rad(3.0), BIN_UM / HD_MPP
    return pa.table(
        {
            "barcode": names,
            "in_tissue": inside.astype(np.int32),
            "array_row": row.astype(np.int32),
            "array_col": column.astype(np.int32),
            "pxl_row_in_fullres": 3000 + step * (row * np.cos(angle) + column * np.sin(angle)),
            "pxl_col_in_fullres": 4000 + step * (column * np.cos(angle) - row * np.sin(angle)),
        }
    )


def _append(dataset: h5py.Dataset, values: np.ndarray) -> None:
    start = len(dataset)
    dataset.resize((start + len(values),))
    dataset[start:] = values
