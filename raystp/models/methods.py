"""All methods, by name. A new method is a folder beside this file and a line here."""

from collections.abc import Mapping
from typing import cast

from raystp.errors import ModelError
from raystp.models.arrays import Arrays, without_encoder
from raystp.models.attention.method import ATTENTION
from raystp.models.baselines.method import GENE_MEAN, HEST_RIDGE, KERNEL_RIDGE, KNN, RIDGE, RIDGE_LOWRANK
from raystp.models.bleep.method import BLEEP
from raystp.models.ensemble.method import ENSEMBLE
from raystp.models.genequery.method import GENEQUERY
from raystp.models.mclstexp.method import MCLSTEXP
from raystp.models.method import Method, ModelMeta
from raystp.models.nh2st.method import NH2ST
from raystp.models.predictor import Predictor, Retriever

METHODS: dict[str, Method] = {
    method.name: method
    for method in (
        *(BLEEP, MCLSTEXP, GENEQUERY, NH2ST, ATTENTION),
        *(ENSEMBLE, RIDGE_LOWRANK, KERNEL_RIDGE, RIDGE, HEST_RIDGE, KNN, GENE_MEAN),
    )
}

DEFAULT = BLEEP.name
"""The method that is trained if a config names none."""

CASES_DEFAULT = ATTENTION.name
"""The method that is trained on labels of whole cases if a config names none."""

REFERENCE = RIDGE.name
"""The baseline that a method's score is compared with."""


def open_predictor(
    kind: str, arrays: Arrays, meta: Mapping[str, object], *, retriever: Retriever | None = None
) -> Predictor:
    """Return the model that `store.load_model` read, ready to predict.

    An ensemble with contrastive members needs the `retriever`, which lets them predict from features alone. An image
    encoder that was trained with the model is left out: it runs where the pixels are.
    Raises ModelError for an unknown method, and for arrays or options that are not those of the method.
    """
    if kind not in METHODS:
        msg = f"unknown method {kind!r}; the methods are {', '.join(sorted(METHODS))}"
        raise ModelError(msg)
    try:
        own = without_encoder(arrays)
        return METHODS[kind].open_predictor(own, cast("ModelMeta", meta), retriever=retriever)
    except (RuntimeError, TypeError, KeyError, ValueError) as error:
        msg = (
            f"the stored arrays or options do not fit method {kind!r} ({error}): a damaged or altered model; "
            "copy it again, or run `raystp train` again"
        )
        raise ModelError(msg) from None
