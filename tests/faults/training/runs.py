"""Trainings on the smoke cohort, in a process of their own that a test may kill."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

from raystp import tables
from raystp.artifacts import Artifact
from raystp.steps.train import step as train
from raystp.steps.train.config import TrainConfig

EPOCHS = 6
BLEEP: dict[str, Any] = {"model": "bleep", "bleep": {"dim": 16, "dropout": 0.1}}


def training(store: Path, name: str, method: dict[str, Any], **run: Any) -> TrainConfig:
    """Return the config of a training with a checkpoint after each epoch."""
    values = {
        "name": name,
        "spots": "spots/smoke",
        "embeddings": "embed/smoke",
        "panel": {"variable": 30},
        "split": {"test": ["patient-C"], "validation": ["patient-B"]},
        "fit": {
            "epochs": EPOCHS,
            "batch_size": 16,
            "accumulate_batches": 1,
            "lr": 1e-4,
            "select": "best",
            "patience": None,
        },
        **method,
    }
    return train.CONFIG.of({**values, "run": {"store": str(store), "checkpoint_every": 1, **run}})


def start_training(config: TrainConfig, folder: Path) -> "subprocess.Popen[bytes]":
    """Start `raystp train`; its output is `log.txt` in the folder."""
    file = folder / "train.yaml"
    file.write_text(yaml.safe_dump(config.model_dump(mode="json", exclude_unset=True)))
    with (folder / "log.txt").open("wb") as log:
        command = [sys.executable, "-m", "raystp.cli", "train", "--config", str(file)]
        return subprocess.Popen(command, stdout=log, stderr=log)


def checkpoints(store: Path, name: str) -> list[Path]:
    """Return the folders of a training's checkpoints, the oldest first."""
    found = (store / "train").glob(f"{name}-*/training/*/checkpoint_*")
    return sorted(one for one in found if one.is_dir())  # Ray's list of checkpoints has such a name, too


def epochs_of(artifact: Artifact) -> list[dict[str, Any]]:
    """Return the rows of the epochs table."""
    rows: list[dict[str, Any]] = artifact.table("epochs.parquet", tables.EPOCHS).to_pylist()
    return rows
