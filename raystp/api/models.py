"""Models and reference indexes in a notebook: predict from features without a step, and without Ray."""

from pathlib import Path

from raystp.artifacts import resolve
from raystp.index.open import ReferenceIndex, open_reference_index
from raystp.models.predictor import Predictor
from raystp.models.store import load_model as load_arrays
from raystp.steps.publish.published import (
    is_published,
    open_published,
    open_published_index,
    open_published_model,
)
from raystp.steps.train.reference import open_model


def load_model(reference: str | Path, *, store: str | Path = "store") -> Predictor:
    """Open a model: `train/<name>` of the store, or a published folder, URI or `hf-hub:<owner>/<name>`.

    `genes` are the columns that it predicts, `d_image` is the length of a tile's features. A model that predicts from
    features alone has `predict(features)`: a row per tile of one slide, by default log1p of counts per 10,000. A
    contrastive one has `embed_images(features)`, whose rows are searched in its index (`open_index`).

    Raises:
        ModelError: a file is missing, damaged or of another version.
        ArtifactError: the store has no such model.

    Examples:
        >>> model = rs.load_model("train/smoke-ridge", store=store)
        >>> model.kind, len(model.genes), model.d_image
        ('ridge', 280, 128)
    """
    text = str(reference)
    if not text.startswith("train/") and is_published(text):
        return open_published_model(open_published(text))
    return open_model(*load_arrays(resolve(str(store), text, "train").path))


def open_index(reference: str | Path, *, store: str | Path = "store") -> ReferenceIndex:
    """Open a reference index: `index/<name>` of the store, or that of a published model.

    `search(queries, k)` returns scores and row numbers of the k nearest rows; `rows` has their origin and
    `expression(rows)` their labels, by default log1p of counts per 10,000. Files are mapped, so the index may be larger
    than memory.

    Raises:
        ArtifactError: the store has no such index, or a file is damaged.
        ModelError: the published model has no index.

    Examples:
        >>> index = rs.open_index("index/smoke-bleep", store=store)
        >>> index.rows.num_rows, len(index.genes), index.metric
        (97, 280, 'cosine')
    """
    text = str(reference)
    if not text.startswith("index/") and is_published(text):
        return open_published_index(open_published(text))
    found = resolve(str(store), text, "index")
    return open_reference_index(found.path, found.manifest.notes["bank"])
