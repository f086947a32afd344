"""Split files: the sides of each fold as others have chosen them, such as those of `raystp import hest-bench`.

A file is the start of a config of `raystp train`: `split` with `test`, and `train`, `validation` and `protocol` where
they are given; `panel`; and a `name`, which the pipeline does not use.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import yaml

from raystp.config import Config, validated
from raystp.config_fields.values import read_values
from raystp.errors import ConfigError, some
from raystp.steps.train.config import SplitConfig
from raystp.storage import StoragePath

FILE = re.compile(r"fold(\d{1,6})\.ya?ml")


class _FileConfig(Config):
    """What a split file may state."""

    name: str | None = None
    split: SplitConfig
    panel: dict[str, Any] | None = None


@dataclass(frozen=True)
class FoldFile:
    """The sides of one fold, and its panel."""

    number: int
    test: tuple[str, ...]
    train: tuple[str, ...] | None
    validation: tuple[str, ...]
    protocol: str | None
    """None where the file does not name one."""
    panel: Mapping[str, Any] | None


def read_fold_files(folder: str) -> list[FoldFile]:
    """Return the folds of a folder, by the number in their file's name; raises ConfigError where one is not valid."""
    root = StoragePath.of(folder)
    numbered = sorted((int(found[1]), name) for name in root.names() if (found := FILE.fullmatch(name)))
    if not numbered:
        has = f"it has {some(sorted(root.names()))}" if root.names() else "it is empty or absent"
        msg = f"folds.files: {root} has no fold0.yaml, fold1.yaml ...: {has}; `raystp import hest-bench` writes them"
        raise ConfigError(msg)
    twice = [name for (number, name), (other, _) in zip(numbered[1:], numbered, strict=False) if number == other]
    if twice:
        msg = f"folds.files: {root} has two files of one number, one of them {twice[0]}: remove one"
        raise ConfigError(msg)
    return [_read(number, root / name) for number, name in numbered]


def _read(number: int, path: StoragePath) -> FoldFile:
    try:
        values = read_values(path.read_bytes().decode(), _FileConfig)
    except (ValueError, yaml.YAMLError) as error:
        msg = f"folds.files: {path} is not YAML: {error}"
        raise ConfigError(msg) from None
    if not isinstance(values, dict):
        msg = f"folds.files: {path} is no mapping of `split` and `panel`"
        raise ConfigError(msg)
    one = validated(_FileConfig, values, f"folds.files: {path}", "split file")
    train = {*(one.split.train or ())}
    if twice := sorted(({*one.split.test} & {*one.split.validation, *train}) | ({*one.split.validation} & train)):
        msg = f"folds.files: {path} has {some(twice)} on two sides of `split`: leave each name on one"
        raise ConfigError(msg)
    return FoldFile(
        number=number,
        test=tuple(one.split.test),
        train=None if one.split.train is None else tuple(one.split.train),
        validation=tuple(one.split.validation),
        protocol=one.split.protocol if "protocol" in one.split.model_fields_set else None,
        panel=one.panel,
    )
