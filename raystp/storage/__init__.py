"""Files on this machine and on object stores, behind the same few verbs; written whole or not at all.

`place` is what every room uses. Below it, one file per kind of store (`local_file`, `s3`, `gs`) knows what pyarrow's
file systems do not: writing only where nothing is yet, and reading one version of an object. `node_cache` keeps whole
objects on a machine's disk.
"""

from raystp.storage.names import is_safe_name
from raystp.storage.place import StoragePath

__all__ = ["StoragePath", "is_safe_name"]
