"""Embed given tiles with another tool (a peer); run by that peer's own Python, which needs no raystp.

    PEER_PYTHON bench_embed_peers.py NAME JOB.json

Read a job: slide, tile corners, network and output path (`_job` in bench_embed.py). Write the vectors, in the order of
the corners, and the time at which each batch had passed the network. Each peer is used as its documentation says, with
its own reader and loop. It is given the corners, the preprocessing and the network (TorchScript). The network records
the times, since no peer reports its progress.
"""

import importlib.metadata
import importlib.util
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

Job = dict[str, Any]
Rows = Any
"""float32 vectors, one row per tile."""


class TimedNetwork(nn.Module):
    """A network that records when it finished how many tiles."""

    def __init__(self, job: Job) -> None:
        super().__init__()
        self.network = torch.jit.load(job["network"]).eval()  # type: ignore[no-untyped-call]  # untyped in torch
        self.progress: list[tuple[float, int]] = []

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """Pass tiles through the network."""
        vectors: torch.Tensor = self.network(pixels)
        self.progress.append((time.time(), len(pixels)))
        return vectors


class Preprocess:
    """From a uint8 tile to the network's input, with torchvision."""

    def __init__(self, job: Job) -> None:
        self.mean, self.std = job["mean"], job["std"]

    def __call__(self, tile: Any) -> torch.Tensor:
        """Normalise one tile, a PIL image or an array."""
        from torchvision.transforms.functional import normalize, to_tensor  # noqa: PLC0415 -- see make_importable

        pixels: torch.Tensor = normalize(to_tensor(tile), self.mean, self.std)
        return pixels


def lazyslide(job: Job, network: TimedNetwork) -> Rows:
    """`tl.feature_extraction` over given tiles."""
    zs, wsidata, io = (importlib.import_module(name) for name in ("lazyslide", "wsidata", "wsidata.io"))
    wsi = wsidata.open_wsi(job["slide"], reader="openslide", store=None)
    corners = np.load(job["corners"])
    spec = wsidata.TileSpec.from_wsidata(wsi, tile_px=job["side"], mpp=0.5)
    io.add_tiles(wsi, "tiles", corners, spec, np.zeros(len(corners), np.int64))
    options = {"batch_size": job["batch"], "num_workers": job["workers"], "device": "cpu", "pbar": False}
    return zs.tl.feature_extraction(wsi, network, transform=Preprocess(job), return_features=True, **options)


def tiatoolbox(job: Job, network: TimedNetwork) -> Rows:
    """`DeepFeatureExtractor` over the whole slide, with its grid replaced by the given tiles."""
    engines: Any = importlib.import_module("tiatoolbox.models.engine.deep_feature_extractor")
    configs: Any = importlib.import_module("tiatoolbox.models.engine.io_config")
    models: Any = importlib.import_module("tiatoolbox.models.models_abc")
    prepare, side, corners = Preprocess(job), job["side"], np.load(job["corners"])

    class Model(models.ModelABC):  # type: ignore[misc]  # not installed where types are checked
        def __init__(self) -> None:
            super().__init__()
            self.timed = network

        def forward(self, pixels: torch.Tensor) -> torch.Tensor:
            return self.timed(pixels)  # type: ignore[no-any-return]

        @staticmethod
        def preproc(image: Any) -> torch.Tensor:
            return prepare(image)

        @staticmethod
        def infer_batch(model: nn.Module, batch_data: torch.Tensor, *, device: str) -> list[Any]:
            with torch.inference_mode():
                return [model(batch_data.to(device)).numpy()]

    class Extractor(engines.DeepFeatureExtractor):  # type: ignore[misc]  # the same
        def get_dataloader(self, *args: Any, **kwargs: Any) -> Any:
            loader = super().get_dataloader(*args, **kwargs)
            loader.dataset.inputs = np.concatenate([corners, corners + side], axis=1)
            return loader

    config = configs.IOPatchPredictorConfig(
        input_resolutions=[{"units": "baseline", "resolution": 1.0}],
        patch_input_shape=[side, side],
        stride_shape=[side, side],
    )
    engine = Extractor(Model(), batch_size=job["batch"], num_workers=job["workers"], verbose=False)
    options = {"patch_mode": False, "auto_get_mask": False, "output_type": "zarr", "overwrite": True}
    folder = Path(job["out"]).with_suffix(".zarr")
    found = engine.run([Path(job["slide"])], ioconfig=config, device="cpu", save_dir=folder, **options)
    return _stored(found)


def _stored(found: Any) -> Rows:
    zarr: Any = importlib.import_module("zarr")
    group = zarr.open(str(next(iter(found.values()))), mode="r")
    return np.asarray(group["features"])


def trident(job: Job, network: TimedNetwork) -> Rows:
    """`OpenSlideWSI.extract_patch_features` over a coordinates file."""
    h5py, package = (importlib.import_module(name) for name in ("h5py", "trident"))
    coordinates = Path(job["out"]).with_suffix(".coordinates.h5")
    with h5py.File(coordinates, "w") as file:
        table = file.create_dataset("coords", data=np.load(job["corners"]))
        table.attrs.update(
            {
                "patch_size": job["side"],
                "patch_size_level0": job["side"],
                "level0_magnification": 20,
                "target_magnification": 20,
            }
        )
    network.eval_transforms = Preprocess(job)  # type: ignore[assignment]  # TRIDENT reads this attribute
    slide = package.OpenSlideWSI(slide_path=job["slide"], lazy_init=False, mpp=0.5, max_workers=job["workers"])
    folder = Path(job["out"]).with_suffix(".trident")
    stored = slide.extract_patch_features(
        network, str(coordinates), str(folder), device="cpu", batch_limit=job["batch"]
    )
    with h5py.File(stored) as file:
        return file["features"][:]


PEERS: dict[str, Callable[[Job, TimedNetwork], Rows]] = {
    "lazyslide": lazyslide,
    "tiatoolbox": tiatoolbox,
    "trident": trident,
}
PACKAGES = {"trident": ("trident", "trident-test")}
"""Names of the installed package, where it differs from the peer's name."""


def main() -> None:
    """Run one peer on one job."""
    name, job = sys.argv[1], json.loads(Path(sys.argv[2]).read_text(encoding="utf-8"))
    make_importable()
    network = TimedNetwork(job)
    began = time.time()
    vectors = np.asarray(PEERS[name](job, network), np.float32)
    out = Path(job["out"])
    np.save(out.with_suffix(".npy"), vectors.reshape(len(vectors), -1))
    note = {"began": began, "progress": network.progress, "version": version(name)}
    out.with_suffix(".json").write_text(json.dumps(note), encoding="utf-8")


def make_importable() -> None:
    """Make torchvision importable beside a CPU torch, with raystp's own file for it, which needs only torch."""
    file = Path(__file__).parents[2] / "raystp" / "encoders" / "families" / "_torchvision.py"
    found = importlib.util.spec_from_file_location("make_importable", file)
    assert found is not None
    assert found.loader is not None
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    module.make_importable()


def version(name: str) -> str:
    """Return the installed version of a peer."""
    for package in PACKAGES.get(name, (name,)):
        try:
            return importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return "?"


if __name__ == "__main__":
    main()
