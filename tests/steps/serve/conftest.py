"""A toy store with slides, for all tests of `serve`."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.cluster.serving.service_toy import make_store


@pytest.fixture(scope="package")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with a toy model; beside it, `slides/A.png` and a link that leaves the folder."""
    folder = tmp_path_factory.mktemp("serve")
    (folder / "slides").mkdir()
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 255, (600, 800, 3), np.uint8)).save(folder / "slides" / "A.png")
    (folder / "secret.png").write_bytes((folder / "slides" / "A.png").read_bytes())
    (folder / "slides" / "link.png").symlink_to(folder / "secret.png")
    return make_store(folder / "store")
