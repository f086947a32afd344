"""Files on this machine and in object stores, with the same methods; each is written whole or not at all.

`path` is what other packages use. Below it are `local_file` and `remote`, the two kinds of stored object. `node_cache`
keeps whole objects on a machine's disk, and `attempt_ledger` counts crashes.
"""

from raystp.storage.local_file import is_safe_name
from raystp.storage.path import StoragePath

__all__ = ["StoragePath", "is_safe_name"]
