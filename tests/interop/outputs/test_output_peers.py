"""spatialdata, wsidata (LazySlide), ome-zarr and tifffile open what raystp writes.

They are installed in an environment of their own, never beside raystp: `RAYSTP_PEERS` is its Python. A tool that is not
there is skipped by its name. From the package index: spatialdata, spatialdata-plot, wsidata, ome-zarr, tifffile.
"""

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from raystp.interop.outputs.registry import write_slide
from raystp.interop.outputs.slide import OutputOptions
from raystp.storage import StoragePath
from tests.interop.outputs.toy import GENES, SIZE, toy_slide

pytestmark = pytest.mark.faults

PEERS = os.environ.get("RAYSTP_PEERS")


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


OPEN_SPATIALDATA = """
import json, sys
import numpy as np, spatialdata as sd
store = sd.read_zarr(sys.argv[1])
joined = {}
for name, table in store.tables.items():
    region = table.uns["spatialdata_attrs"]["region"]
    found, rows = sd.join_spatialelement_table(
        sdata=store, spatial_element_names=region, table_name=name, how="inner", match_rows="left"
    )
    (shapes,) = found.values()
    values = rows.X.toarray() if hasattr(rows.X, "toarray") else rows.X
    x = np.asarray([one.centroid.x for one in shapes.geometry])
    joined[name] = [region, x.tolist(), np.nan_to_num(values[:, 0], nan=-1).tolist()]
extents = {
    name: {
        system: [float(end) for axis in "xy" for end in sd.get_extent(store[name], coordinate_system=system)[axis]]
        for system in ("global", "um")
    }
    for name in ("tissues", "tiles", "spots", "thumbnail")
}
part = sd.bounding_box_query(
    store, axes=("x", "y"), min_coordinate=[0, 0], max_coordinate=[140, 240], target_coordinate_system="um"
)
store.write(sys.argv[2])
again = sd.read_zarr(sys.argv[2])
print(json.dumps([joined, extents, len(part["tiles"]), sorted(name for _, name, _ in again.gen_elements())]))
"""


@pytest.mark.parametrize("x", ["float32", "float16", "csr"])
def test_spatialdata_opens_a_store_and_finds_elements_transforms_and_links(tmp_path: Path, x: Any) -> None:
    write_slide("spatialdata", toy_slide(), StoragePath.of(tmp_path), OutputOptions(x=x))
    joined, extents, part, again = _peer("spatialdata", OPEN_SPATIALDATA, tmp_path / "S1.zarr", tmp_path / "2.zarr")
    centres = toy_slide().centres[:, 0].tolist()
    numbers = list(range(20))
    assert joined["predicted_bleep"] == ["tiles", centres, numbers]
    assert joined["measured"] == ["spots", centres, [one + 1 for one in numbers]]
    assert joined["tiny_tiles"] == ["tiles", centres, [0] * 20]
    for name, places in (("tiles", [100, 1100, 300, 1100]), ("thumbnail", [0, 1600, 0, 1300])):
        assert extents[name] == {"global": places, "um": [one / 2 for one in places]}
    assert extents["tissues"]["um"] == [0, 750, 0, 650]
    assert extents["spots"]["global"] == [110, 1090, 310, 1090]  # circles of radius 90 around 200 to 1000
    assert part == 1
    elements = ["measured", "predicted_bleep", "spots", "thumbnail", "tiles", "tiny_tiles", "tissues"]
    assert again == elements


PLOT = """
import json, sys
import matplotlib
matplotlib.use("Agg")
import matplotlib.pyplot as plt, spatialdata as sd, spatialdata_plot
store = sd.read_zarr(sys.argv[1])
plot = store.pl.render_images("thumbnail").pl.render_shapes("tiles", color="ERBB2", table_name="predicted_bleep")
plot.pl.show(coordinate_systems="um", save=sys.argv[2])
pixels = plt.imread(sys.argv[2])[..., :3]
print(json.dumps(len(set(map(tuple, pixels.reshape(-1, 3).round(2).tolist())))))
"""


def test_spatialdata_plot_draws_predicted_tiles_on_the_thumbnail(tmp_path: Path) -> None:
    write_slide("spatialdata", toy_slide(), StoragePath.of(tmp_path), OutputOptions())
    assert _peer("spatialdata_plot", PLOT, tmp_path / "S1.zarr", tmp_path / "plot.png") > 20


OPEN_WSIDATA = """
import json, sys
from wsidata import open_wsi
wsi = open_wsi(sys.argv[1], store=sys.argv[2])
spec = wsi.tile_spec("tiles")
print(json.dumps([
    sorted(wsi.shapes), sorted(wsi.tables), spec.width, spec.base_width, spec.mpp, wsi.properties.mpp,
    list(wsi.properties.shape), wsi.tables["predicted_bleep"].var_names.tolist(), len(wsi.shapes["tiles"]),
]))
"""


def test_lazyslide_opens_a_store_beside_its_slide(tmp_path: Path) -> None:
    slide = tmp_path / "S1.tiff"
    resolution: dict[str, Any] = {"resolution": (20_000, 20_000), "resolutionunit": "CENTIMETER"}
    pixels = np.full((SIZE[1], SIZE[0], 3), 200, np.uint8)
    tifffile.imwrite(slide, pixels, tile=(256, 256), photometric="rgb", **resolution)
    write_slide("spatialdata", toy_slide(), StoragePath.of(tmp_path), OutputOptions())
    shapes, tables, width, base, mpp, slide_mpp, size, genes, tiles = _peer(
        "wsidata", OPEN_WSIDATA, slide, tmp_path / "S1.zarr"
    )
    assert shapes == ["spots", "tiles", "tissues"]
    assert tables == ["measured", "predicted_bleep", "tiny_tiles"]
    assert (width, base, slide_mpp, tiles) == (224, 200, 0.5, 20)
    assert mpp == pytest.approx(100 / 224)
    assert size == [1300, 1600]
    assert genes == list(GENES)


OPEN_OMEZARR = """
import json, sys
import numpy as np
from ome_zarr.io import parse_url
from ome_zarr.reader import Reader
(node,) = Reader(parse_url(sys.argv[1]))()
about = node.metadata
(image,) = node.data
values = np.nan_to_num(np.asarray(image), nan=-1)
transforms = about["coordinateTransformations"]
print(json.dumps([about["channel_names"], transforms, values[0].tolist(), values[1, 0, 3].item()]))
"""


@pytest.mark.parametrize("ngff", ["0.4", "0.5"])
def test_ome_zarr_opens_a_heat_map(tmp_path: Path, ngff: Any) -> None:
    write_slide("omezarr", toy_slide(), StoragePath.of(tmp_path), OutputOptions(ngff=ngff))
    genes, transforms, values, missing = _peer("ome_zarr", OPEN_OMEZARR, tmp_path / "S1.ome.zarr")
    assert genes == list(GENES)
    scale, translation = transforms[0]
    assert (scale["scale"], translation["translation"]) == ([1, 100, 100], [0, 200, 100])
    assert np.ravel(values).tolist() == list(range(20))
    assert missing == -1


OPEN_OMETIFF = """
import json, sys
import tifffile
with tifffile.TiffFile(sys.argv[1]) as file:
    (series,) = file.series
    print(json.dumps([file.is_ome, series.axes, list(series.shape), series.asarray()[0].ravel().tolist()]))
"""


def test_tifffile_opens_a_heat_map_as_ome_tiff(tmp_path: Path) -> None:
    write_slide("ometiff", toy_slide(), StoragePath.of(tmp_path), OutputOptions())
    is_ome, axes, shape, values = _peer("tifffile", OPEN_OMETIFF, tmp_path / "S1.ome.tif")
    assert (is_ome, axes, shape) == (True, "CYX", [3, 4, 5])
    assert values == list(range(20))
