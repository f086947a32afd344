"""Files of other tools: one module per format, with `read` and `write` as plain functions on arrays.

`features/` has tile coordinates and vectors (TRIDENT, CLAM, STAMP, slide2vec, AtlasPatch, LazySlide), `outputs/` what
is written of predictions (SpatialData, QuPath, OME-Zarr, OME-TIFF, CSV). The registries `IMPORTS` and `EXPORTS` are in
`registry`. Nothing is unpickled, and sizes are checked before data are read.
"""
