"""Writers of files of CLAM, STAMP, slide2vec and AtlasPatch from the descriptions of their formats.

They use nothing of raystp. Each field of a maker is one trap: the defaults are a slide of six tiles as the tool writes
it.
"""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch

CORNERS = np.array([(512 * c, 512 * r) for r in range(2) for c in range(3)])
VECTORS = np.arange(24, dtype=np.float32).reshape(6, 4)


def _file(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


@dataclass
class Clam:
    """`h5_files`, `pt_files` and `patches` of one slide."""

    folder: Path
    slide: str = "S1"
    corners: Any = field(default_factory=CORNERS.copy)
    vectors: Any = field(default_factory=VECTORS.copy)
    attributes: dict[str, Any] = field(
        default_factory=lambda: {
            "patch_size": 256,
            "patch_level": 1,
            "downsample": (2.0, 2.0),
            "downsampled_level_dim": (2000, 1500),
            "level_dim": (2000, 1500),
            "name": "S1",
            "save_path": "/elsewhere/patches",
        }
    )
    h5: bool = True
    pt: Any = None
    """What is saved as `.pt`, if anything."""
    patches: Any = field(default_factory=CORNERS.copy)
    """Corners in `patches/`; None writes no such file."""

    @property
    def vectors_file(self) -> Path:
        return self.folder / "h5_files" / f"{self.slide}.h5"

    def write(self) -> Path:
        if self.h5:
            with h5py.File(_file(self.vectors_file), "w") as file:
                file["features"] = self.vectors
                file["coords"] = self.corners
        if self.pt is not None:
            torch.save(self.pt, _file(self.folder / "pt_files" / f"{self.slide}.pt"))
        if self.patches is not None:
            with h5py.File(_file(self.folder / "patches" / f"{self.slide}.h5"), "w") as file:
                file["coords"] = self.patches
                file["coords"].attrs.update(self.attributes)
        return self.folder


@dataclass
class Stamp:
    """One slide of 512 px and 128 um a tile, at .25 um/px."""

    folder: Path
    slide: str = "S1"
    corners: Any = field(default_factory=lambda: (CORNERS * 0.25).astype(np.float32))
    vectors: Any = field(default_factory=lambda: VECTORS.astype(np.float16))
    attributes: dict[str, Any] = field(
        default_factory=lambda: {
            "stamp_version": "2.3.0",
            "extractor": "uni2",
            "unit": "um",
            "tile_size_um": 128.0,
            "tile_size_px": 224,
            "code_hash": "0123abcd",
            "feat_type": "tile",
        }
    )
    names: tuple[str, str] = ("feats", "coords")

    @property
    def file(self) -> Path:
        return self.folder / f"{self.slide}.h5"

    def write(self) -> Path:
        with h5py.File(_file(self.file), "w") as file:
            file[self.names[0]] = self.vectors
            if self.corners is not None:
                file[self.names[1]] = self.corners
            file.attrs.update(self.attributes)
        return self.folder


@dataclass
class Slide2vec:
    """One slide of 512 px a tile, read at .26 um/px where .25 was asked for."""

    folder: Path
    slide: str = "S1"
    kind: str = ""
    """Class of tissue; "" is the flat layout."""
    corners: Any = field(default_factory=CORNERS.copy)
    vectors: Any = field(default_factory=lambda: torch.from_numpy(VECTORS))
    index: Any = None
    """`tile_index` of an `.npz`; None with a tensor."""
    numbers: Any = None
    """`tile_index` of the coordinates; None is their order."""
    tiling: dict[str, Any] = field(
        default_factory=lambda: {
            "requested_tile_size_px": 256,
            "requested_spacing_um": 0.5,
            "read_level": 1,
            "read_spacing_um": 0.52,
            "tile_size_lv0": 512,
            "step_px_lv0": 512,
            "overlap": 0.0,
            "tolerance": 0.07,
            "is_within_tolerance": True,
        }
    )
    spacing: Any = 0.26
    described: dict[str, Any] = field(
        default_factory=lambda: {
            "sample_id": "S1",
            "encoder_name": "uni2",
            "encoder_level": "tile",
            "feature_dim": 4,
            "num_tiles": 6,
            "image_path": "/another/machine/S1.svs",
            "mask_path": None,
            "coordinates_npz_path": "/another/machine/tiles/S1.coordinates.npz",
            "tile_size_lv0": 512,
        }
    )

    @property
    def vectors_file(self) -> Path:
        ending = "pt" if self.index is None else "npz"
        return self.folder / "tile_embeddings" / self.kind / f"{self.slide}.{ending}"

    @property
    def coordinates_file(self) -> Path:
        return self.folder / "tiles" / self.kind / f"{self.slide}.coordinates.npz"

    def write(self) -> Path:
        _file(self.vectors_file)
        if self.index is None:
            torch.save(self.vectors, self.vectors_file)
        else:
            np.savez_compressed(self.vectors_file, features=np.asarray(self.vectors), tile_index=self.index)
        self.vectors_file.with_name(f"{self.slide}.meta.json").write_text(json.dumps(self.described))
        x, y = (np.ascontiguousarray(axis) for axis in np.asarray(self.corners).T)
        index = np.arange(len(x), dtype=np.int32) if self.numbers is None else self.numbers
        fractions = np.ones(len(x), np.float32)
        np.savez(_file(self.coordinates_file), x=x, y=y, tile_index=index, tissue_fractions=fractions)
        meta = {
            "provenance": {"sample_id": self.slide, "image_path": "/another/machine/S1.svs"},
            "slide": {"dimensions": [4000, 3000], "base_spacing_um": self.spacing, "level_downsamples": [1.0, 2.0]},
            "tiling": self.tiling,
            "segmentation": {},
            "filtering": {},
            "artifact": {"coordinate_space": "level0_px"},
        }
        self.coordinates_file.with_name(f"{self.slide}.coordinates.meta.json").write_text(json.dumps(meta))
        return self.folder


@dataclass
class AtlasPatch:
    """One slide with the vectors of several encoders."""

    folder: Path
    slide: str = "S1"
    corners: Any = field(
        default_factory=lambda: np.concatenate([CORNERS, np.tile([256, 256, 1], (6, 1))], axis=1).astype(np.int32)
    )
    vectors: dict[str, Any] = field(default_factory=lambda: {"uni_v2": VECTORS, "resnet50": VECTORS[:, :3]})
    attributes: dict[str, Any] = field(
        default_factory=lambda: {
            "patch_size": 256,
            "patch_size_level0": 512,
            "num_patches": 6,
            "filename": "S1.svs",
            "mpp": 0.25,
            "magnification": 40,
            "vendor": "None",
            "level0_width": 4000,
            "level0_height": 3000,
        }
    )

    @property
    def file(self) -> Path:
        return self.folder / f"{self.slide}.h5"

    def write(self) -> Path:
        with h5py.File(_file(self.file), "w") as file:
            file["coords"] = self.corners
            for name, vectors in self.vectors.items():
                stored = file.create_dataset(f"features/{name}", data=vectors)
                stored.attrs.update({"name": name, "embedding_dim": vectors.shape[-1]})
            file.attrs.update(self.attributes)
        return self.folder


def bomb(path: Path, names: tuple[str, str]) -> None:
    """Replace an HDF5 file by one that declares 10^9 tiles and stores none."""
    with h5py.File(path, "w") as file:
        file.create_dataset(names[0], shape=(10**9, 4), dtype="f2", chunks=(4096, 4))
        file.create_dataset(names[1], shape=(10**9, 2), dtype="i1", chunks=(4096, 2))


def link(path: Path, name: str) -> None:
    """Replace a dataset of an HDF5 file by a link to another file."""
    with h5py.File(path, "a") as file:
        del file[name]
        file[name] = h5py.ExternalLink("/etc/passwd", "/features")
