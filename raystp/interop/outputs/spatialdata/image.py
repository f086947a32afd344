"""An image of a SpatialData store: one level of a multiscale image in RGB."""

import numpy as np
import zarr
from jaxtyping import UInt8
from zarr.codecs import ZstdCodec

from raystp.interop.outputs.spatialdata.transforms import transforms

AXES = ("c", "y", "x")
CHUNK_PX = 1024


def write_image(
    root: zarr.Group, name: str, pixels: UInt8[np.ndarray, "row col 3"], *, size: tuple[int, int], mpp: float
) -> None:
    """Write the element `images/<name>`, a picture of the whole slide, whose `size` is its level-0 width and height."""
    rows, columns, _ = pixels.shape
    axes = [{"name": "c", "type": "channel"}, *({"name": axis, "type": "space"} for axis in ("y", "x"))]
    multiscale = {
        "name": f"/images/{name}",
        "axes": axes,
        "datasets": [{"path": "s0", "coordinateTransformations": [{"type": "scale", "scale": [1.0, 1.0, 1.0]}]}],
        "coordinateTransformations": transforms(AXES, (1.0, size[1] / rows, size[0] / columns), mpp),
    }
    ome = {
        "version": "0.5-dev-spatialdata",
        "omero": {"channels": [{"label": label} for label in "rgb"]},
        "multiscales": [multiscale],
    }
    group = root.create_group(f"images/{name}", attributes={"ome": ome, "spatialdata_attrs": {"version": "0.3"}})
    group.create_array(
        "s0",
        data=np.ascontiguousarray(pixels.transpose(2, 0, 1)),
        chunks=(3, min(CHUNK_PX, rows), min(CHUNK_PX, columns)),
        dimension_names=list(AXES),
        compressors=ZstdCodec(level=3),
    )
