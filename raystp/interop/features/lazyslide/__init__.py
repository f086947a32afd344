"""Stores of LazySlide and wsidata: a SpatialData store per slide, read without the spatialdata package."""

from raystp.interop.features.lazyslide.store import find, read

__all__ = ["find", "read"]
