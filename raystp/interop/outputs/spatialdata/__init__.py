"""SpatialData stores (container 0.2, zarr v3), written without the spatialdata package."""
