"""Whether a model's maps lie where expression was planted: read off the predictions of attention regression."""

from collections.abc import Callable, Mapping

import anndata as ad
import numpy as np
from jaxtyping import Float32

from raystp.evaluate.hotspots import Overlap, overlap
from raystp.steps.pairs import Counts
from raystp.steps.scored import Scored

SHARE = 0.2
"""The region of a gene: this share of a section's spots, where most of it was planted; and the map's highest spots."""

MAPS = ("attention", "contribution")

Planted = Callable[[Counts], Float32[np.ndarray, "spot gene"]]


def hotspot_lines(
    models: list[Scored], measured: Mapping[str, Counts], genes: tuple[str, ...], *, planted: Planted, wanted: list[str]
) -> list[str]:
    """Return a line per model and map: mean AUC and overlap over planted genes and sections, beside chance."""
    lines = []
    columns = [number for number, gene in enumerate(genes) if gene in set(wanted)]
    for one in models:
        if one.model.manifest.config["model"] != "attention":
            continue
        found: dict[str, list[Overlap]] = {name: [] for name in MAPS}
        for counts in measured.values():
            adata = ad.read_h5ad((one.prediction.place / "anndata" / f"{counts.slide}.h5ad").path)
            at = {spot: row for row, spot in enumerate(counts.spots)}
            truth = planted(counts)[[at[spot] for spot in adata.obs_names]]
            for name in MAPS:
                found[name] += [_of_gene(adata.layers[name][:, column], truth[:, column]) for column in columns]
        lines += [f"`{one.name}` {name}: {_said(overlaps)}" for name, overlaps in found.items() if overlaps]
    return lines


def _of_gene(values: Float32[np.ndarray, " spot"], truth: Float32[np.ndarray, " spot"]) -> Overlap:
    count = max(1, round(SHARE * len(truth)))
    region = np.zeros(len(truth), bool)
    region[np.argsort(-truth, kind="stable")[:count]] = True
    return overlap(values, region, top=SHARE)


def _said(found: list[Overlap]) -> str:
    auc, iou, chance = (float(np.mean([getattr(one, name) for one in found])) for name in ("auc", "iou", "chance_iou"))
    return (
        f"over {len(found)} planted genes and sections, AUC {auc:.3f} (chance .5) and overlap {iou:.3f} "
        f"(chance {chance:.3f}) with the {SHARE:.0%} of spots where most was planted"
    )
