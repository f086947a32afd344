"""What the maps of attention regression are worth: beside what was planted, as tiles are taken away, and over seeds.

A map by itself is no evidence. Each figure is a row of the scores table with what chance gives as its null, and a line
for the summary. The maps are computed anew from the model and the embeddings that a prediction names; they are those
that `impute` left.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
from jaxtyping import Float32

from raystp import tables
from raystp.artifacts import Artifact, open_artifact
from raystp.evaluate.metrics.hotspots import MapOverlap, MapStability, deletion_curves, overlap, stability
from raystp.evaluate.metrics.score import MEAN, Row
from raystp.expression.schema import read_h5ad
from raystp.expression.sections import SectionCounts, embeddings_of
from raystp.models.attention.predictor import AttentionPredictor
from raystp.models.predictor import predictor
from raystp.models.store import load_model
from raystp.steps.evaluate.predictions import Prediction
from raystp.storage import StoragePath

SHARE = 0.2
"""The region of a gene: this share of a section's spots, where most of it was planted; and the map's highest spots."""

MAPS = ("attention", "contribution")

GENES_TAKEN, SLIDES_TAKEN = 8, 8
"""Curves and stability are of so many genes and slides at most."""

DRAWS = 19
"""Random orders beside each curve: none as low has a p of 1/20."""

Planted = Callable[[SectionCounts], Float32[np.ndarray, "spot gene"]]


@dataclass(frozen=True)
class AttentionSubject:
    """An attention model with the embeddings that it predicted from."""

    scored: Prediction
    ready: AttentionPredictor
    embed: Artifact

    def features(self, slide: str) -> Float32[np.ndarray, "tile feature"]:
        """Return the features of a slide's tiles."""
        return tables.matrix(embeddings_of(self.embed, slide)["vector"])

    def but_for_its_seed(self) -> str:
        """Return what models have in common that differ in their seed alone."""
        config = {**self.scored.model.manifest.config, "name": ""}
        config["fit"] = {**config["fit"], "seed": 0}
        return json.dumps([config, self.embed.manifest.folder], sort_keys=True)

    @property
    def seed(self) -> int:
        """The seed of the training."""
        return int(self.scored.model.manifest.config["fit"]["seed"])


@dataclass(frozen=True)
class HotspotScores:
    """Rows for the scores table, and lines for the summary."""

    rows: list[Row]
    lines: list[str]

    def __add__(self, other: "HotspotScores") -> "HotspotScores":
        return HotspotScores(self.rows + other.rows, self.lines + other.lines)


NOTHING = HotspotScores([], [])


def subjects_of(models: list[Prediction], store: StoragePath) -> list[AttentionSubject]:
    """Return the attention models among those that are scored, ready to answer."""
    found = []
    for one in models:
        kind, arrays, meta = load_model(one.model.path)
        ready = predictor(kind, arrays, meta)
        if isinstance(ready, AttentionPredictor):
            found.append(
                AttentionSubject(
                    one, ready, open_artifact(store / one.prediction.manifest.inputs["embeddings"], "embed")
                )
            )
    return found


def genes_taken(meta: Mapping[str, object], planted: Sequence[str], named: Sequence[str]) -> list[str]:
    """Return which genes' maps are tried: planted ones, else those that were named, else those that vary most."""
    panel = list(np.asarray(meta["genes"]).tolist())
    wanted = [gene for gene in planted if gene in panel] or [gene for gene in named if gene in panel]
    order = np.argsort(-np.asarray(meta["training_variance"]), kind="stable").tolist()
    return (wanted or [panel[gene] for gene in order])[:GENES_TAKEN]


def overlaps(
    subjects: list[AttentionSubject],
    measured: Mapping[str, SectionCounts],
    genes: tuple[str, ...],
    *,
    planted: Planted,
    wanted: list[str],
) -> HotspotScores:
    """Return, per model and map, the mean AUC and overlap over planted genes and sections, beside chance."""
    found, columns = NOTHING, [number for number, gene in enumerate(genes) if gene in set(wanted)]
    for one in subjects:
        seen: dict[str, list[MapOverlap]] = {name: [] for name in MAPS}
        for counts in measured.values():
            adata = read_h5ad(one.scored.prediction.path / "anndata" / f"{counts.slide}.h5ad")
            at = {spot: row for row, spot in enumerate(counts.spots)}
            truth = planted(counts)[[at[spot] for spot in adata.obs_names]]
            for name in MAPS:
                seen[name] += [_of_gene(adata.layers[name][:, column], truth[:, column]) for column in columns]
        found += sum((_overlap(one, name, values) for name, values in seen.items() if values), NOTHING)
    return found


def _of_gene(values: Float32[np.ndarray, " spot"], truth: Float32[np.ndarray, " spot"]) -> MapOverlap:
    count = max(1, round(SHARE * len(truth)))
    region = np.zeros(len(truth), bool)
    region[np.argsort(-truth, kind="stable")[:count]] = True
    return overlap(values, region, top=SHARE)


def _overlap(one: AttentionSubject, name: str, found: list[MapOverlap]) -> HotspotScores:
    auc, iou, chance = (float(np.mean([getattr(each, of) for each in found])) for of in ("auc", "iou", "chance_iou"))
    tiles = sum(each.tiles for each in found)
    line = (
        f"`{one.scored.name}` {name}: over {len(found)} planted genes and sections, AUC {auc:.3f} (chance .5) and "
        f"overlap {iou:.3f} (chance {chance:.3f}) with the {SHARE:.0%} of spots where most was planted"
    )
    rows = [_row(one, f"{name} AUC", auc, null=0.5, n=tiles), _row(one, f"{name} IoU", iou, null=chance, n=tiles)]
    return HotspotScores([{**row, "genes": "planted"} for row in rows], [line])


def deletions(
    subjects: list[AttentionSubject], slides: Sequence[str], genes: Sequence[str], *, seed: int
) -> HotspotScores:
    """Return, per model and map, what is left of a slide's prediction as the map's highest tiles are taken away.

    The figure is the mean along the way, in standard deviations of the training labels, and its null that of random
    orders of the same tiles.
    """
    found = NOTHING
    for one in subjects:
        areas: dict[str, list[dict[str, float]]] = {name: [] for name in MAPS}
        tiles = 0
        for slide in slides[:SLIDES_TAKEN]:
            features = one.features(slide)
            if len(features) < 2:  # noqa: PLR2004 -- one tile cannot be ranked
                continue
            tiles += len(features)
            maps = one.ready.maps(features, list(genes))
            for (column, gene), name in product(enumerate(genes), MAPS):
                parts, predict = one.ready.removable(features, gene)
                rng = np.random.default_rng([seed, column])
                curves = deletion_curves(predict, parts, maps[name][:, column], rng=rng, draws=DRAWS)
                areas[name].append(curves.areas())
        found += sum((_deletion(one, name, values, tiles) for name, values in areas.items() if values), NOTHING)
    return found


def _deletion(one: AttentionSubject, name: str, areas: list[dict[str, float]], tiles: int) -> HotspotScores:
    left, random, spread = (float(np.mean([each[of] for each in areas])) for of in ("deletion", "random", "random_sd"))
    lower = sum(each["deletion_p"] <= 1 / (DRAWS + 1) + 1e-9 for each in areas)
    line = (
        f"`{one.scored.name}` {name}: without its highest tiles the slide's prediction falls to {left:+.3f} sd of the "
        f"labels (mean along the way), without random tiles to {random:+.3f}; below all of {DRAWS} random orders in "
        f"{lower} of {len(areas)} genes and slides"
    )
    return HotspotScores([_row(one, f"{name} deletion", left, null=random, sd=spread, n=tiles)], [line])


def stabilities(subjects: list[AttentionSubject], slides: Sequence[str], genes: Sequence[str]) -> HotspotScores:
    """Return how alike the maps are of models that differ in their seed alone; nothing where there are no two."""
    groups: dict[str, list[AttentionSubject]] = {}
    for one in subjects:
        groups.setdefault(one.but_for_its_seed(), []).append(one)
    found = NOTHING
    for group in groups.values():
        if len({one.seed for one in group}) < 2:  # noqa: PLR2004 -- a pair
            continue
        seen: dict[str, list[MapStability]] = {name: [] for name in MAPS}
        tiles = 0
        for slide in slides[:SLIDES_TAKEN]:
            features = group[0].features(slide)
            if len(features) < 2:  # noqa: PLR2004 -- one tile cannot be ranked
                continue
            tiles += len(features)
            maps = [one.ready.maps(features, list(genes)) for one in group]
            for column, name in product(range(len(genes)), MAPS):
                seen[name].append(stability([each[name][:, column] for each in maps]))
        found += sum((_stability(group, name, values, tiles) for name, values in seen.items() if values), NOTHING)
    return found


def _stability(group: list[AttentionSubject], name: str, found: list[MapStability], tiles: int) -> HotspotScores:
    mean, least = float(np.mean([one.mean for one in found])), min(one.least for one in found)
    seeds = ", ".join(str(one.seed) for one in group)
    line = (
        f"`{group[0].scored.name}` {name}: over seeds {seeds} the maps' rank correlation is {mean:.3f} (chance 0), the "
        f"least of {sum(one.pairs for one in found)} pairs {least:.3f}"
    )
    return HotspotScores([_row(group[0], f"{name} stability", mean, null=0.0, n=tiles)], [line])


def _row(one: AttentionSubject, metric: str, value: float, *, null: float, n: int, sd: float | None = None) -> Row:
    notes = one.scored.prediction.manifest.notes
    row: Row = {"protocol": notes["protocol"], "panel": notes["panel"], "model": one.scored.name, "section": MEAN}
    row |= {"genes": "tried", "metric": metric, "value": value, "low": None, "high": None}
    return row | {"null_mean": null, "null_sd": sd, "constant": 0, "n": n}
