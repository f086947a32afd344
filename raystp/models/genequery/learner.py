"""GeneQuery's training from arrays and gene texts, and a predictor of all genes of a stored model."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Float32

from raystp.errors import ModelError
from raystp.models.arrays import Arrays, SpotArrays
from raystp.models.genequery.model import GeneQuery, seeded_genequery
from raystp.models.genequery.options import GeneQueryOptions
from raystp.models.genequery.predictor import GeneQueryPredictor, open_genequery
from raystp.models.genequery.samples import SectionGenes
from raystp.models.method import ModelMeta
from raystp.models.training.samples import PairDataset, SampleSet
from raystp.models.training.setup import SpotInputs, TrainSetup

UNSEEN_TEXT = "unseen_text"
"""Array of a stored model: the texts of the genes that were held back from its training."""


def setup(options: GeneQueryOptions, inputs: SpotInputs) -> TrainSetup:
    """Return the model of the seen genes. The texts of the unseen genes are stored; their counts are never used."""
    texts, train = inputs.texts, inputs.train
    if texts is None:
        msg = "GeneQuery needs a text embedding for each gene: pass `texts`, one row per gene"
        raise ModelError(msg)
    columns = {gene: column for column, gene in enumerate(inputs.meta["genes"])}
    seen, unseen = ([columns[gene] for gene in inputs.meta[side]] for side in ("seen", "unseen"))
    model = seeded_genequery(train.features.shape[1], texts[seen], options, seed=inputs.seed)
    model.standardize(train.features)
    model.standardize_labels(train.expression[:, seen], train.group)
    validation = _samples(inputs, inputs.validation, seen, model) if inputs.validation is not None else None
    extra = {UNSEEN_TEXT: texts[unseen]} if unseen else {}
    return TrainSetup(model.to(inputs.device), _samples(inputs, train, seen, model), validation, extra=extra)


def _samples(inputs: SpotInputs, spots: SpotArrays, seen: list[int], model: GeneQuery) -> SampleSet:
    features, expression = inputs.tensors(spots)
    expression = expression[:, seen]
    if model.options.context != "spot":
        return PairDataset.of(features, expression, missing=True)
    parts = [torch.from_numpy(spots.group == number).to(inputs.device) for number in range(len(spots.sections))]
    kept = [(name, part) for name, part in zip(spots.sections, parts, strict=True) if bool(part.any())]
    return SectionGenes.of(
        [features[part] for _, part in kept], [expression[part] for _, part in kept], [name for name, _ in kept]
    )


@dataclass(frozen=True)
class AllGenesPredictor:
    """GeneQuery with the texts of all its genes, seen and unseen in training."""

    kind: str
    genes: list[str]
    d_image: int
    model: GeneQueryPredictor
    texts: Float32[np.ndarray, "gene text"]

    def predict(self, features: Float[np.ndarray, "tile feature"]) -> Float32[np.ndarray, "tile gene"]:
        """Return expression of `genes` at all tiles of a slide; raises ModelError for features of another encoder."""
        return self.model.predict(features, genes=self.genes, texts=self.texts)


def open_predictor(arrays: Arrays, meta: ModelMeta) -> AllGenesPredictor:
    """Return a stored model; `meta` names its `seen` and `unseen` genes."""
    own = {name: value for name, value in arrays.items() if name != UNSEEN_TEXT}
    model = open_genequery(own, {**meta, "genes": meta["seen"]})
    rows = dict(zip(meta["seen"], arrays["text"], strict=True))
    rows |= dict(zip(meta["unseen"], arrays.get(UNSEEN_TEXT, ()), strict=True))
    texts = np.stack([rows[gene] for gene in meta["genes"]])
    return AllGenesPredictor("genequery", meta["genes"], meta["d_image"], model, texts)
