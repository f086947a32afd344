"""Features of STAMP: one HDF5 file a slide, with coordinates in um; and its tables of slides and of patients."""

from raystp.interop.features.stamp.files import find, read, write
from raystp.interop.features.stamp.tables import write_tables

__all__ = ["find", "read", "write", "write_tables"]
