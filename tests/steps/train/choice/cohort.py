"""A tiny measured cohort in a store: expression follows the features as planted, or its training side is permuted."""

from collections.abc import Mapping

import numpy as np

from raystp import tables
from raystp.artifacts import Artifact
from raystp.expression.schema import SectionInfo, SpotPositions, make_section, write_section
from raystp.storage import StoragePath
from tests.steps.conftest import finish

GENES = [f"G{number}" for number in range(6)]
FEATURES = 40
"""So many that a direction drawn at random has little in common with the planted ones."""
SPOTS = 24
SIDE = 16.0
TEST = "T"


def make_cohort(
    store: StoragePath,
    patients: Mapping[str, str],
    *,
    permuted: bool = False,
    blocks: int = 1,
    spots: int = SPOTS,
    grid: int = 0,
) -> Artifact:
    """Write `spots/tiny` and `embed/tiny`, `embed/more`, ... of these sections (section -> patient); return the spots.

    The first block of features is noise where there are more than one. With `permuted`, the measurements of all
    sections but `TEST` are dealt to other spots of the same section. With `grid`, the spatial tokens of a spot are
    `grid` x `grid` copies of its features, each with noise of its own.
    """
    names = [f"s{number}" for number in range(spots)]
    at = np.arange(float(spots))
    xy = np.stack([at % 8, at // 8], axis=1) * 20 + 20
    sections = {
        name: {"patient": patient, "slide": name, "mpp": 0.5, "spots": spots, "genes": len(GENES), "notes": {}}
        for name, patient in patients.items()
    }
    measured = finish(store, "spots", "tiny", {"sections": sections})
    weights = 1.5 * np.random.default_rng(7).standard_normal((FEATURES, len(GENES))) / np.sqrt(FEATURES)
    features = {}
    for number, (name, patient) in enumerate(patients.items()):
        rng = np.random.default_rng([number, 1])
        features[name] = rng.standard_normal((blocks, spots, FEATURES)).astype(np.float32)
        counts = rng.poisson(np.exp(2 + features[name][-1] @ weights)) + 1.0
        if permuted and name != TEST:
            counts = rng.permutation(counts)
        info = SectionInfo(name, patient, name, mpp=0.5, spot_diameter_um=5.0, pitch_um=20.0, layout="toy")
        section = make_section(counts, GENES, SpotPositions(names, xy, at, at), info)
        write_section(measured.path / "sections" / f"{name}.h5ad", section)
    for block in range(blocks):
        embed = _embed(store, patients, block, grid)
        for name, rows in features.items():
            corners = xy - SIDE / 2
            columns = [[name] * spots, range(spots), corners[:, 0], corners[:, 1], [SIDE] * spots, names]
            table = tables.of_columns([*columns, tables.vectors(rows[block])], tables.embeddings(FEATURES))
            (embed.path / "embeddings" / name / f"{name}.00000.parquet").write_table(table)
            if grid:
                noise = np.random.default_rng(block).standard_normal((spots, grid**2, FEATURES))
                tokens = (rows[block][:, None] + noise).reshape(spots, -1).astype(np.float16)
                table = tables.of_columns(
                    [range(spots), tables.vectors(tokens, "float16")], tables.tokens(tokens.shape[1])
                )
                (embed.path / "tokens" / name / f"{name}.00000.parquet").write_table(table)
    return measured


def _embed(store: StoragePath, patients: Mapping[str, str], block: int, grid: int) -> Artifact:
    notes = {
        "encoder": {"name": "tiny"},
        "encoder_identity": f"seed:{block}",
        "precision": "float32",
        "side": 8.0,
        "pixels": 16,
        "tiles": "",
        "units": {slide: [f"{slide}.00000"] for slide in patients},
        "patients": dict(patients),
        **({"tokens": grid} if grid else {}),
    }
    return finish(store, "embed", f"tiny{block}" if block else "tiny", notes)
