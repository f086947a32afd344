"""One peer's embedding of the tiles that it is given; run by that peer's own Python, which needs no raystp.

    PEER_PYTHON bench_embed_peers.py NAME JOB.json

In goes a job: slide, places, network and where to write (`Job` in bench_embed_runs.py). Out come the vectors, in the
order of the places, and a note of when each batch was through the network. Each peer is used as its own pages say, with
its own reader and its own loop; given are the places, the preprocessing and the network, by TorchScript. The network
keeps the time, since no peer says how far it is.
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
"""float32 vectors, a row a place."""


class Timed(nn.Module):
    """A network that notes when it was done with how many tiles."""

    def __init__(self, job: Job) -> None:
        super().__init__()
        self.network = torch.jit.load(job["network"]).eval()  # type: ignore[no-untyped-call]  # torch gives it no types
        self.marks: list[tuple[float, int]] = []

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """Pass tiles through the network."""
        vectors: torch.Tensor = self.network(pixels)
        self.marks.append((time.time(), len(pixels)))
        return vectors


class Preprocess:
    """uint8 tile to what the network takes, as torchvision does it."""

    def __init__(self, job: Job) -> None:
        self.mean, self.std = job["mean"], job["std"]

    def __call__(self, tile: Any) -> torch.Tensor:
        """Normalise one tile, a PIL image or an array."""
        from torchvision.transforms.functional import normalize, to_tensor  # noqa: PLC0415 -- see make_importable

        pixels: torch.Tensor = normalize(to_tensor(tile), self.mean, self.std)
        return pixels


def lazyslide(job: Job, network: Timed) -> Rows:
    """`tl.feature_extraction` over tiles that are added by hand."""
    zs, wsidata, io = (importlib.import_module(name) for name in ("lazyslide", "wsidata", "wsidata.io"))
    wsi = wsidata.open_wsi(job["slide"], reader="openslide", store=None)
    places = np.load(job["places"])
    spec = wsidata.TileSpec.from_wsidata(wsi, tile_px=job["side"], mpp=0.5)
    io.add_tiles(wsi, "tiles", places, spec, np.zeros(len(places), np.int64))
    options = {"batch_size": job["batch"], "num_workers": job["workers"], "device": "cpu", "pbar": False}
    return zs.tl.feature_extraction(wsi, network, transform=Preprocess(job), return_features=True, **options)


def tiatoolbox(job: Job, network: Timed) -> Rows:
    """`DeepFeatureExtractor` over the whole slide, its grid replaced by the places."""
    engines: Any = importlib.import_module("tiatoolbox.models.engine.deep_feature_extractor")
    configs: Any = importlib.import_module("tiatoolbox.models.engine.io_config")
    models: Any = importlib.import_module("tiatoolbox.models.models_abc")
    prepare, side, places = Preprocess(job), job["side"], np.load(job["places"])

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

    class Extractor(engines.DeepFeatureExtractor):  # type: ignore[misc]  # nor this
        def get_dataloader(self, *args: Any, **kwargs: Any) -> Any:
            loader = super().get_dataloader(*args, **kwargs)
            loader.dataset.inputs = np.concatenate([places, places + side], axis=1)
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


def trident(job: Job, network: Timed) -> Rows:
    """`OpenSlideWSI.extract_patch_features` over a coordinates file."""
    h5py, package = (importlib.import_module(name) for name in ("h5py", "trident"))
    coordinates = Path(job["out"]).with_suffix(".coordinates.h5")
    with h5py.File(coordinates, "w") as file:
        table = file.create_dataset("coords", data=np.load(job["places"]))
        table.attrs.update(
            {
                "patch_size": job["side"],
                "patch_size_level0": job["side"],
                "level0_magnification": 20,
                "target_magnification": 20,
            }
        )
    network.eval_transforms = Preprocess(job)  # type: ignore[assignment]  # where TRIDENT looks for it
    slide = package.OpenSlideWSI(slide_path=job["slide"], lazy_init=False, mpp=0.5, max_workers=job["workers"])
    folder = Path(job["out"]).with_suffix(".trident")
    stored = slide.extract_patch_features(
        network, str(coordinates), str(folder), device="cpu", batch_limit=job["batch"]
    )
    with h5py.File(stored) as file:
        return file["features"][:]


PEERS: dict[str, Callable[[Job, Timed], Rows]] = {"lazyslide": lazyslide, "tiatoolbox": tiatoolbox, "trident": trident}
PACKAGES = {"trident": ("trident", "trident-test")}
"""Under which names a peer is installed, where not under its own."""


def main() -> None:
    """Run one peer on one job."""
    name, job = sys.argv[1], json.loads(Path(sys.argv[2]).read_text(encoding="utf-8"))
    make_importable()
    network = Timed(job)
    began = time.time()
    vectors = np.asarray(PEERS[name](job, network), np.float32)
    out = Path(job["out"])
    np.save(out.with_suffix(".npy"), vectors.reshape(len(vectors), -1))
    note = {"began": began, "marks": network.marks, "version": version(name)}
    out.with_suffix(".json").write_text(json.dumps(note), encoding="utf-8")


def make_importable() -> None:
    """Let torchvision be imported beside a CPU torch, by raystp's own file for that, which needs torch alone."""
    file = Path(__file__).parents[2] / "raystp" / "encoders" / "_torchvision.py"
    found = importlib.util.spec_from_file_location("make_importable", file)
    assert found is not None
    assert found.loader is not None
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    module.make_importable()


def version(name: str) -> str:
    """Return the version of a peer that is installed."""
    for package in PACKAGES.get(name, (name,)):
        try:
            return importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return "?"


if __name__ == "__main__":
    main()
