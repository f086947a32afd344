"""Steps in a notebook: each function is `raystp <step>` with its config's fields as keyword arguments.

A field is that of the step's config class; a part of it is a mapping: `encoder={"name": "uni_v2"}`. `store` and
`address` are those of `run`. An artifact is given as `<step>/<name>`, a path, or the result of another function. Equal
work is not repeated. Steps start a local Ray where they need one, unless `address` is that of a cluster.
"""

import importlib
import importlib.util
import pkgutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import raystp.steps
from raystp.api.results import StepResult
from raystp.artifacts import Artifact
from raystp.errors import ConfigError
from raystp.steps import package_of
from raystp.steps.printed import Printed

Reference = str | Path | StepResult
"""`<step>/<name>`, a path or URI, or a result."""

OF_RUN = ("store", "address")
"""Fields of `run` that may be given beside the step's own fields."""


def run(step: str, **fields: Any) -> StepResult | str:
    """Run a step by its name; return its artifact, or what the command prints for a step without one.

    Raises:
        ConfigError: an unknown step or field, or a wrong value; the message has all faults.
        RaystpError: the step cannot run; slides that fail are rows of `failures`, and raise nothing.

    Examples:
        >>> spots = rs.run("spots", slides=cohort / "slides.csv", name="smoke", store=store)
        >>> spots.manifest.rows["sections"]
        3
    """
    packages = {f"raystp.steps.{one.name}" for one in pkgutil.iter_modules(raystp.steps.__path__) if one.ispkg}
    if package_of(step) not in packages:
        known = sorted({one.rpartition(".")[2] for one in packages})
        msg = f"there is no step {step!r}; the steps are {', '.join(known)}"
        raise ConfigError(msg)
    module = importlib.import_module(f"{package_of(step)}.step")
    values: dict[str, Any] = {name: _plain(value) for name, value in fields.items() if value is not None}
    for_run = {name: values.pop(name) for name in OF_RUN if name in values}
    values["run"] = {**values.get("run", {}), **for_run}
    result: Artifact | Printed | str = module.run(module.CONFIG.of(values, f"{step}(...)"))
    if isinstance(result, Artifact):
        return StepResult(result)
    return result.text if isinstance(result, Printed) else result


def tile_slides(slides: str | Path, **fields: Any) -> StepResult:
    """Place tiles on slides: on a grid over their tissue, or around measured `spots`.

    `slides` is a folder, a glob or a slide table. `tile_um` is a tile's side in um of tissue (112), `tile_px` in px as
    it is read (224).

    Raises:
        ConfigError: the table or a field is not valid. A slide that fails is a row of `failures`.

    Examples:
        >>> tiles = rs.tile_slides(cohort / "slides.csv", spots="spots/smoke", name="smoke", store=store)
        >>> tiles.table()["slide"].tolist()[:2]
        ['patient-A', 'patient-B']
    """
    return _artifact("tile", slides=slides, **fields)


def embed_tiles(tiles: Reference, *, encoder: str | Mapping[str, Any] = "tiny", **fields: Any) -> StepResult:
    """Encode tiles: a vector per tile. `encoder` is a name, or a mapping with `name`, `weights`, `sha256`.

    Raises:
        ConfigError: the tiles have another px than the encoder expects.
        EncoderError: an unknown encoder, or weights that are not found.

    Examples:
        >>> embedded = rs.embed_tiles("tile/smoke", encoder="tiny", name="smoke", store=store)
        >>> vectors = embedded.table("embeddings/patient-A")["vector"]
        >>> len(vectors[0])
        128
    """
    chosen = {"name": encoder} if isinstance(encoder, str) else dict(encoder)
    return _artifact("embed", tiles=tiles, encoder=chosen, **fields)


def train_model(
    method: str,
    *,
    embeddings: Reference | Sequence[Reference],
    spots: Reference | None = None,
    test: str | Sequence[str] = (),
    **fields: Any,
) -> StepResult:
    """Train a model on measured spots: `bleep`, `ridge`, `genequery` ...; `test` are held-out patients or sections.

    Expression is log1p of counts per 10,000, or what `labels` says. `panel`, `split`, `fit` and the method's own part
    are further fields.

    Raises:
        LeakError: a test patient has sections on the training side.
        ConfigError, ModelError: fields that contradict each other or the data.

    Examples:
        >>> model = rs.train_model(
        ...     "ridge", spots="spots/smoke", embeddings="embed/smoke", test="patient-C", panel={"variable": 20},
        ...     name="example", store=store, run={"tracking": "none"},
        ... )
        >>> model.manifest.rows["genes"]
        20
    """
    split = {**(fields.pop("split", None) or {}), **({"test": _listed(test)} if test else {})}
    return _artifact("train", model=method, embeddings=embeddings, spots=spots, split=split, **fields)


def build_index(model: Reference, *, spots: Reference, embeddings: Reference, **fields: Any) -> StepResult:
    """Build the reference index of a contrastive model from measured spots; by default of the model's training side.

    Raises:
        ModelError: the model predicts without an index.

    Examples:
        >>> index = rs.build_index(
        ...     "train/smoke-bleep", spots="spots/smoke", embeddings="embed/smoke", shards=2, name="smoke-bleep",
        ...     store=store,
        ... )
        >>> index.table()["patient"].unique().tolist()
        ['patient-A', 'patient-B']
    """
    return _artifact("index", model=model, spots=spots, embeddings=embeddings, **fields)


def impute_expression(
    embeddings: Reference | Sequence[Reference],
    *,
    model: Reference,
    index: Reference | None = None,
    **fields: Any,
) -> StepResult:
    """Predict the expression of embedded tiles, in the unit of its labels: by default log1p of counts per 10,000.

    Raises:
        LeakError: a named slide, or its patient, is in the model or its index.
        ModelError, ConfigError: the embeddings or the index are not those of the model.

    Examples:
        >>> predicted = rs.impute_expression(
        ...     "embed/smoke", model="train/smoke-bleep", index="index/smoke-bleep", spots="spots/smoke", k=20,
        ...     spread=True, name="smoke-bleep", store=store,
        ... )
        >>> predicted.anndata("patient-C").shape[1]
        280
    """
    return _artifact("impute", embeddings=embeddings, model=model, index=index, **fields)


def evaluate_predictions(
    predictions: Reference | Sequence[Reference], *, spots: Reference, **fields: Any
) -> StepResult:
    """Score predictions on the same measured spots: PCC, MSE and more, with controls and a permutation null.

    `permutations` is the number of permuted trainings (0 for none). The report is `report.html` in the artifact.

    Raises:
        ConfigError: the predictions have other genes or protocols than each other.

    Examples:
        >>> scored = rs.evaluate_predictions(
        ...     ["impute/smoke-gene_mean"], spots="spots/smoke", permutations=0, draws=100, name="example", store=store,
        ...     run={"tracking": "none"},
        ... )
        >>> "PCC" in set(scored.table()["metric"])
        True
    """
    return _artifact("evaluate", predictions=_listed(predictions), spots=spots, **fields)


def predict_slides(
    slides: str | Path,
    *,
    model: Reference,
    genes: str | Sequence[str] | None = None,
    out: str | Path | None = None,
    **fields: Any,
) -> StepResult:
    """Predict the expression of slides with a published model, or one of the store: tile, embed and impute.

    `model` is a folder, a URI, `hf-hub:<owner>/<name>` or `train/<name>`. The table has a row per slide: `tiles`,
    `mpp` (um/px of the scan), `far_share`, `problem`. `out` is a folder for a copy of the results.

    Raises:
        ModelError: the published model is damaged, or of another version.
        EncoderError: the encoder's weights are not found, or are others than the model's.

    Examples:
        >>> predicted = rs.predict_slides(slides, model="train/smoke-ridge", store=store, name="example")
        >>> predicted.table()[["slide", "encoder"]].values.tolist()
        [['unmeasured', 'tiny']]
    """
    return _artifact(
        "predict", slides=slides, model=model, genes=None if genes is None else _listed(genes), out=out, **fields
    )


def _artifact(step: str, **fields: Any) -> StepResult:
    result = run(step, **fields)
    assert isinstance(result, StepResult)  # of these steps
    return result


def _listed(given: Reference | Sequence[Reference]) -> list[Reference]:
    """Return a list of what is given; a single text is one name, not its letters."""
    return [given] if isinstance(given, str | Path | StepResult) else list(given)


def _plain(value: Any) -> Any:
    """Return a field's plain value: paths and results as text."""
    if isinstance(value, Path | StepResult):
        return str(value) if isinstance(value, Path) else value.path
    if isinstance(value, Mapping):
        return {key: _plain(one) for key, one in value.items()}
    return [_plain(one) for one in value] if isinstance(value, list | tuple) else value
