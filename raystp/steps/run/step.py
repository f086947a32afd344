"""run: a folder or a table of slides -> the artifacts of a pipeline, whose config follows from a few flags.

`raystp run INPUT --dry-run` prints that config, and `raystp pipeline --config FILE` does the same work with it.
"""

import logging
from collections.abc import Sequence
from typing import Any

import yaml

from raystp.artifacts import Artifact
from raystp.encoders.registry import CARDS
from raystp.errors import ConfigError
from raystp.slides.table import SlideRow, read_slide_table
from raystp.steps.pipeline import step as pipeline
from raystp.steps.pipeline.chain import planned_steps
from raystp.steps.pipeline.config import PipelineConfig, over
from raystp.steps.printed import Printed
from raystp.steps.run.config import RunCommandConfig

logger = logging.getLogger("raystp")

STEP = "run"
CONFIG = RunCommandConfig

Values = dict[str, Any]


def run(config: RunCommandConfig) -> Artifact:
    """Run the pipeline that the flags stand for."""
    pipeline.import_data(config)
    return pipeline.run(PipelineConfig.of(pipeline_values(config, rows_of(config)), "raystp run"))


def dry_run(config: RunCommandConfig) -> Printed:
    """Print the pipeline's config as YAML; nothing is run."""
    values = pipeline_values(config, rows_of(config))
    planned_steps(PipelineConfig.of(values, "raystp run"))
    head = "# `raystp pipeline --config FILE` with this file does what this command does.\n"
    return Printed(head + yaml.safe_dump(values, sort_keys=False, allow_unicode=True))


def rows_of(config: RunCommandConfig) -> list[SlideRow]:
    """Return the slides that are given. Raises ConfigError for an invalid table."""
    return read_slide_table(config.slides, config.root, config.run.store)


def pipeline_values(config: RunCommandConfig, rows: Sequence[SlideRow]) -> Values:
    """Return the pipeline's config as plain values, without defaults.

    Raises ConfigError for measured sections that cannot be divided.
    """
    given = {name: getattr(config, name) for name in config.model_fields_set if name in PipelineConfig.model_fields}
    measured = [row for row in rows if row.layout]
    values: Values = {"name": config.name, "slides": config.slides}
    from_root = {} if config.root is None else {"root": config.root}
    tile = _under(config.tile, {**from_root, **_tile_size(config.encoder)})
    encoder = {"name": config.encoder, "weights": config.weights}
    chosen = {key: value for key, value in encoder.items() if value is not None}
    embed = _under(config.embed, {"encoder": chosen} if chosen else {})
    values |= {name: part for name, part in (("tile", tile), ("embed", embed)) if part}
    if measured or config.train is not None:
        values |= {"spots": {**from_root, **config.spots}} if from_root or config.spots else {}
        values |= {} if config.train is not None or _has_own_method(config) else _training(config, measured)
    elif wrong := sorted({"model", "test"} & config.model_fields_set):
        msg = (
            f"{wrong[0]}: no row of {config.slides} is a measured section (`layout` and `counts`), so nothing is "
            "trained; leave it out, or give a table of measured sections"
        )
        raise ConfigError(msg)
    run_part = config.run.model_dump(mode="json", exclude_defaults=True)
    rest = {name: value for name, value in given.items() if name not in {*values, "run"}}
    return {**values, **rest, **({"run": run_part} if run_part else {})}


def _under(given: Values | list[Values], known: Values) -> Values | list[Values]:
    """Return a step's values, or each of a list, over those that are known of all."""
    return [over(known, one) for one in given] if isinstance(given, list) else over(known, given)


def _tile_size(encoder: str | None) -> Values:
    """Return the tiles that an encoder was trained on; nothing for one that is unknown here, or of photographs."""
    card = CARDS.get(encoder or "")
    if card is None or not card.mpp:
        return {}
    px = int(card.tile_px)
    mpp = next((float(mpp) for mpp in card.mpp if float(mpp) == 0.5), float(card.mpp[0]))  # noqa: PLR2004 -- 20x
    return {"tile_um": px * mpp, "tile_px": px}


def _has_own_method(config: RunCommandConfig) -> bool:
    """Return whether the protocol trains the method that it was made for."""
    if config.protocol is None or "model" in config.model_fields_set:
        return False
    from raystp.steps.pipeline.protocol import own_training  # noqa: PLC0415 -- imports SciPy

    return bool(own_training(config.protocol))


def _training(config: RunCommandConfig, measured: Sequence[SlideRow]) -> Values:
    is_divided = "split" in config.shared or config.folds is not None or config.protocol is not None
    split = {} if is_divided and not config.test else {"split": _split(config.test, measured)}
    models = [{"model": name} for name in config.model]
    shared = over(split, config.shared)
    return {"train": models if len(models) > 1 else models[0], **({"shared": shared} if shared else {})}


def _split(test: list[str], measured: Sequence[SlideRow]) -> Values:
    """Return who is held out: those named, else the last patient, or the last section where there is one patient."""
    if test:
        return {"test": test}
    patients = list(dict.fromkeys(row.patient for row in measured))
    if len(patients) > 1:
        logger.info(f"  patient {patients[-1]!r} is held out for the scores; choose another with `test`")
        return {"test": [patients[-1]]}
    if len(measured) > 1:
        held = measured[-1].section
        logger.info(f"  one patient: section {held!r} is held out, and the scores do not apply to another patient")
        return {"protocol": "section", "test": [held]}
    msg = (
        "slides: one measured section cannot both be trained on and be scored; give a table of two or more, or train "
        "on other sections and predict with `raystp impute`"
    )
    raise ConfigError(msg)
