"""A disk that is full at a checkpoint: an error that says so, no damaged checkpoint, and the same command resumes."""

import shutil
from pathlib import Path

import pytest
import yaml

from raystp.artifacts import resolve
from raystp.steps.train import step as train
from tests.faults.drivers import FAILED
from tests.faults.test_disks import on_a_small_disk
from tests.faults.training.runs import BLEEP, EPOCHS, epochs_of, training

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.faults]


def test_a_disk_that_is_full_at_a_checkpoint_ends_the_training_and_more_space_resumes_it(
    smoke_store: Path, tmp_path: Path
) -> None:
    sources = {step: resolve(str(smoke_store), f"{step}/smoke", step).path.uri for step in ("spots", "embed")}
    store, copy = tmp_path / "store", tmp_path / "copy"
    config = training(store, "full", BLEEP, tracking="none")
    config = config.model_copy(update={"spots": sources["spots"], "embeddings": sources["embed"]})
    file = tmp_path / "train.yaml"
    file.write_text(yaml.safe_dump(config.model_dump(mode="json", exclude_unset=True)))
    ran = on_a_small_disk(store, "200k", "train", "--config", str(file), copy=copy)
    assert ran.returncode == FAILED, ran.stdout + ran.stderr
    assert "No space left on device" in ran.stdout + ran.stderr
    assert "Traceback" not in ran.stderr
    shutil.rmtree(store)
    copy.rename(store)
    found = train.run(config)
    assert [row["epoch"] for row in epochs_of(found)] == list(range(EPOCHS))
    alone = train.run(
        config.model_copy(update={"run": config.run.model_copy(update={"store": str(tmp_path / "other")})})
    )
    for name in ("train_loss", "validation_loss"):
        assert [row[name] for row in epochs_of(found)] == pytest.approx(
            [row[name] for row in epochs_of(alone)], abs=1e-6
        )
