"""The object store of the tests of `storage`."""

from tests.storage.conftest import bucket, server, store_port

__all__ = ["bucket", "server", "store_port"]
