"""Files of other tools: one module per format, with `read` and `write` as plain functions on arrays.

`features/` has tile coordinates and vectors (TRIDENT, CLAM, STAMP, slide2vec, AtlasPatch, LazySlide), `sections/` has
folders of slides with spots (HEST, hest-bench, STimage-1K4M), `outputs/` what is written of predictions (SpatialData,
QuPath, OME-Zarr, OME-TIFF, CSV). The registries `IMPORTS` and `EXPORTS` are in `registry`. Nothing is unpickled, and
sizes are checked before data are read.
"""
