"""The object store of `tests/storage`, and the proxy in front of it that refuses requests."""

from tests.storage.conftest import bucket, one_proxy, proxied, proxy, server, store_port

__all__ = ["bucket", "one_proxy", "proxied", "proxy", "server", "store_port"]
