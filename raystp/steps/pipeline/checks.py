"""What a pipeline is checked for before Ray starts and before the first slide is read.

A wrong name in the last part of a config is found in a second, and not after hours of embedding.
"""

from collections.abc import Iterable, Sequence
from typing import Any

from raystp.encoders.registry import check_name
from raystp.errors import ConfigError, RaystpError, some
from raystp.slides.table import SlideRow, check_slide_table
from raystp.steps.embed.config import EmbedConfig
from raystp.steps.encoder_source import spec_of
from raystp.steps.pipeline.config import PipelineConfig
from raystp.steps.pipeline.folds.fold import UNKNOWN
from raystp.steps.spots.config import SpotsConfig
from raystp.steps.tile.config import TileConfig
from raystp.steps.train.spots.config import SpotsTrainConfig
from raystp.storage import StoragePath


def check_inputs(config: PipelineConfig, steps: Sequence[Any]) -> None:
    """Raise ConfigError for slides that cannot be listed, for names of a split that they lack, and for encoders.

    `steps` are the configs of all steps. Raises StorageError for a store that cannot be written.
    """
    faults: list[str] = []
    rows: dict[tuple[str, str | None], list[SlideRow]] = {}
    for one in steps:
        if isinstance(one, SpotsConfig | TileConfig) and (one.slides, one.root) not in rows:
            rows[one.slides, one.root] = check_slide_table(one.slides, one.root, config.run.store)
        if isinstance(one, EmbedConfig):
            faults += _encoder_faults(one)
        if isinstance(one, SpotsTrainConfig) and not config.of_cases and one.spots in _made(steps):
            faults += _split_faults(one, rows.values())
    if faults:
        raise ConfigError("\n".join(faults))
    StoragePath.of(config.run.store).check_writable()


def _made(steps: Sequence[Any]) -> set[str]:
    return {f"spots/{one.name}" for one in steps if isinstance(one, SpotsConfig)}


def _encoder_faults(config: EmbedConfig) -> list[str]:
    found = []
    for one in config.each():
        if one.encoder.trained is not None:
            continue
        try:
            check_name(spec_of(one.encoder))
        except RaystpError as error:
            found.append(f"pipeline: embed {one.name}: {error}")
    return found


def _split_faults(config: SpotsTrainConfig, tables: Iterable[Sequence[SlideRow]]) -> list[str]:
    """Return a sentence for each side of the split with a name that no measured slide has."""
    measured = [row for rows in tables for row in rows if row.layout]
    known = {row.section for row in measured} | {row.patient for row in measured}
    sides = {"test": config.split.test, "validation": config.split.validation, "train": config.split.train or []}
    found = []
    for side, names in sides.items():
        if unknown := [name for name in names if name not in known and name != UNKNOWN]:
            msg = f"pipeline: train {config.name}: split.{side}: no measured slide is of {some(unknown)}"
            found.append(f"{msg}; the sections and patients are {some(sorted(known), 20)}")
    return found
