"""The tools themselves read what raystp writes, and raystp reads what they write.

They are installed in an environment of their own, never beside raystp: `RAYSTP_PEERS` is its Python. A tool that is not
there is skipped by its name. From the package index: torchmil, wsidata, hs2p, atlas-patch, and trident-test, which is
TRIDENT 0.1.1; its wheel has no folder, so link its files as the package `trident`.
"""

import json
import os
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from raystp.interop.choice import FolderChoice
from raystp.interop.features import atlaspatch, clam, lazyslide, slide2vec, trident
from raystp.interop.features.tiles import TileVectors
from raystp.storage import StoragePath
from tests.interop.features.makers import CORNERS, VECTORS, Slide2vec

pytestmark = pytest.mark.faults

PEERS = os.environ.get("RAYSTP_PEERS")
TILES = TileVectors(
    slide="S1",
    boxes=np.column_stack([CORNERS, np.full(6, 512)]).astype(np.float64),
    vectors=VECTORS,
    tile_px=224,
    mpp=0.25,
    size=(2048, 1024),
    encoder="uni_v1",
    attributes={"artifact": "embed/x"},
)


def _peer(module: str, script: str, *arguments: Path) -> Any:
    """Run a script in the peers' environment and return the JSON of its last line."""
    if PEERS is None:
        pytest.skip(f"{module}: RAYSTP_PEERS, the Python of an environment with other tools, is not set")
    if subprocess.run([PEERS, "-c", f"import {module}"], capture_output=True, check=False).returncode:
        pytest.skip(f"{module} is not installed in the environment of {PEERS}")
    command = [PEERS, "-W", "ignore", "-c", script, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def _slide(folder: Path) -> Path:
    path = folder / "S1.tiff"
    pixels = np.random.default_rng(0).integers(0, 255, (1024, 2048, 3), dtype=np.uint8)
    pixels[:512, 512:1024] //= 2  # the second tile is darker
    resolution: dict[str, Any] = {"resolution": (40_000, 40_000), "resolutionunit": "CENTIMETER"}
    tifffile.imwrite(path, pixels, tile=(256, 256), photometric="rgb", **resolution)
    return path


TRIDENT = """
import json, sys, h5py, numpy as np, torch
from trident.wsi_objects.OpenSlideWSI import OpenSlideWSI

class Mean(torch.nn.Module):
    precision = torch.float32
    eval_transforms = staticmethod(lambda image: torch.from_numpy(np.array(image)).permute(2, 0, 1).float())
    def forward(self, pixels): return pixels.mean((2, 3))

class WholeSlide(torch.nn.Module):
    precision = torch.float32
    def forward(self, batch, device): return batch["features"].mean(1)

slide, patches, features, out = sys.argv[1:]
wsi = OpenSlideWSI(slide_path=slide, mpp=.25, lazy_init=False, max_workers=0)
made = wsi.extract_patch_features(Mean(), patches, out + "/tiles", device="cpu")
whole = wsi.extract_slide_features(features, WholeSlide(), out + "/slides", device="cpu")
with h5py.File(made) as tiles, h5py.File(whole) as slides:
    print(json.dumps([tiles["features"][:, 0].tolist(), slides["features"][:].tolist()]))
"""


def test_trident_embeds_the_tiles_that_raystp_writes_and_pools_their_vectors(tmp_path: Path) -> None:
    slide = _slide(tmp_path)
    assert trident.write(TILES, StoragePath.of(tmp_path / "job")) == []
    (grid,) = (tmp_path / "job").iterdir()
    files = grid / "patches" / "S1_patches.h5", grid / "features_uni_v1" / "S1.h5"
    means, pooled = _peer("trident.IO", TRIDENT, slide, *files, tmp_path)
    np.testing.assert_allclose(pooled, VECTORS.mean(axis=0))
    pixels = tifffile.imread(slide)[..., 0]
    expected = [pixels[y : y + 512, x : x + 512].mean() for x, y in CORNERS]
    np.testing.assert_allclose(means, expected, atol=1)  # TRIDENT resizes 512 px to 224


TORCHMIL = """
import json, sys
from torchmil.datasets import ProcessedMILDataset, TridentWSIDataset
kind, folder, labels = sys.argv[1:]
keys = ["X", "coords"]
if kind == "trident":
    bags = TridentWSIDataset(folder + "/", labels, "uni_v1", bag_keys=keys, patch_size=512)
else:
    bags = ProcessedMILDataset(folder, coords_path=folder, bag_keys=keys, file_ext=".h5")
print(json.dumps([bags[0]["X"].tolist(), bags[0]["coords"].tolist()]))
"""


def test_torchmil_reads_what_is_written_for_trident_and_for_clam(tmp_path: Path) -> None:
    trident.write(TILES, StoragePath.of(tmp_path / "job"))
    clam.write(TILES, StoragePath.of(tmp_path / "clam"))
    (grid,) = (tmp_path / "job").iterdir()
    vectors, places = _peer("torchmil.datasets", TORCHMIL, Path("trident"), grid, tmp_path)
    assert (vectors, places) == (VECTORS.tolist(), (CORNERS // 512).tolist())
    folder = tmp_path / "clam" / "h5_files"
    vectors, places = _peer("torchmil.datasets", TORCHMIL, Path("clam"), folder, tmp_path)
    assert (vectors, places) == (VECTORS.tolist(), CORNERS.tolist())


WSIDATA = """
import sys, numpy as np, shapely
from wsidata import TileSpec, open_wsi
from wsidata.io import add_features, add_tiles, add_tissues
slide, store = sys.argv[1:]
wsi = open_wsi(slide, store=store)
spec = TileSpec.from_wsidata(wsi, tile_px=256, mpp=0.5)
corners = np.array([(spec.base_width * c, spec.base_height * r) for r in range(2) for c in range(3)])
add_tissues(wsi, "tissues", [shapely.box(0, 0, 1536, 1024)])
add_tiles(wsi, "tiles", corners, spec, np.zeros(6, int))
add_features(wsi, "uni2_tiles", "tiles", np.arange(24, dtype=np.float32).reshape(6, 4))
wsi.write()
print("0")
"""


def test_what_wsidata_writes_is_read(tmp_path: Path) -> None:
    _peer("wsidata", WSIDATA, _slide(tmp_path), tmp_path / "S1.zarr")
    (files,) = lazyslide.find(StoragePath.of(tmp_path), FolderChoice()).slides
    found = lazyslide.read(files, FolderChoice(), None)
    np.testing.assert_array_equal(found.boxes, TILES.boxes)
    np.testing.assert_array_equal(found.vectors, VECTORS)
    assert (found.mpp, found.size, found.encoder, found.tile_px) == (0.25, (2048, 1024), "uni2", 256)
    assert found.tissue is not None


ATLASPATCH = """
import sys, numpy as np
from pathlib import Path
from atlas_patch.services.storage import H5PatchWriter
writer = H5PatchWriter(chunk_rows=4, patch_size=256, patch_size_level0=512, level0_mag=40, target_mag=20,
                       level0_wh=(2048, 1024), overlap=0, slide_stem="S1", wsi_path="S1.svs",
                       extra_file_attrs={"filename": "S1.svs", "mpp": 0.25, "vendor": None})
entries = [(512 * c, 512 * r, 256, 256, 1, np.full((2, 2, 3), 3 * r + c, np.uint8)) for r in range(2) for c in range(3)]
writer.write_coords(Path(sys.argv[1]), entries, batch=4)
writer.append_features(output_path=Path(sys.argv[1]), entries=entries, feature_name="uni_v2",
                       feature_fn=lambda images: np.stack([image[0, 0] for image in images]).astype(np.float32),
                       feature_attrs={"name": "uni_v2", "embedding_dim": 3}, feature_batch=4, expected_total=6)
print("0")
"""


def test_what_atlaspatch_writes_is_read(tmp_path: Path) -> None:
    _peer("atlas_patch.services.storage", ATLASPATCH, tmp_path / "S1.h5")
    (files,) = atlaspatch.find(StoragePath.of(tmp_path), FolderChoice()).slides
    found = atlaspatch.read(files, FolderChoice(), None)
    np.testing.assert_array_equal(found.boxes, TILES.boxes)
    np.testing.assert_array_equal(found.vectors, np.repeat(np.arange(6.0)[:, None], 3, axis=1))
    assert (found.mpp, found.size, found.encoder, found.image) == (0.25, (2048, 1024), "uni_v2", "S1.svs")


HS2P = """
import sys, numpy as np
from pathlib import Path
from hs2p.artifacts import save_tiling_result
from hs2p.tiling.result import TileGeometry, TilingResult
x, y = np.repeat(512 * np.arange(3), 2), np.tile(512 * np.arange(2), 3)  # its own order: x, then y
tiles = TileGeometry(x=x, y=y, tissue_fractions=np.ones(6, np.float32), requested_tile_size_px=256,
                     requested_spacing_um=0.5, read_level=0, read_tile_size_px=512, read_spacing_um=0.25,
                     tile_size_lv0=512, is_within_tolerance=True, base_spacing_um=0.25,
                     slide_dimensions=[2048, 1024], level_downsamples=[1.0], overlap=0.0, min_tissue_fraction=0.1)
settings = dict(tolerance=.05, step_px_lv0=512, tissue_method="hsv", requested_seg_downsample=64, seg_downsample=64,
                seg_level=0, seg_spacing_um=16., seg_sthresh=8, seg_sthresh_up=255, seg_mthresh=7, seg_close=4,
                ref_tile_size_px=256, a_t=4, a_h=2, filter_white=False, filter_black=False, white_threshold=220,
                black_threshold=25, fraction_threshold=.9)
result = TilingResult(tiles=tiles, sample_id="S1", image_path="/elsewhere/S1.svs", backend="openslide",
                      requested_backend="auto", **settings)
save_tiling_result(result, Path(sys.argv[1]))
print("0")
"""


def test_coordinates_that_hs2p_writes_are_read(tmp_path: Path) -> None:
    maker = Slide2vec(tmp_path)
    maker.write()
    for one in (tmp_path / "tiles").iterdir():
        one.unlink()
    _peer("hs2p.artifacts", HS2P, tmp_path)
    (files,) = slide2vec.find(StoragePath.of(tmp_path), FolderChoice()).slides
    found = slide2vec.read(files, FolderChoice(), None)
    assert sorted(found.boxes.tolist()) == sorted(TILES.boxes.tolist())
    assert found.boxes[1].tolist() == [0, 512, 512]
    assert replace(found, boxes=TILES.boxes).mpp == 0.25
