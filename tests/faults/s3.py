"""An S3 store behind a proxy that injects faults, for one object or for all."""

import contextlib
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pyarrow.fs as pafs
from moto.server import ThreadedMotoServer

from raystp.storage import StoragePath
from tests.storage import fault_proxy
from tests.storage.fault_proxy import Fault, Proxy

BUCKET = "faults"


@dataclass
class ObjectFault(Fault):
    """A fault for objects whose path contains `of`."""

    of: str = ""


@dataclass
class FaultyStore(Proxy):
    """The proxy; `faulty_store.add("cut", 1000, of="/A.svs")` cuts the reads of one object."""

    request: threading.local = field(default_factory=threading.local)

    def add(self, kind: str, at: int = 0, **more: Any) -> None:
        self.faults.append(ObjectFault(kind, at, **more))

    def take(self, method: str) -> Fault | None:
        with self.lock:
            for fault in self.faults:
                applies = not isinstance(fault, ObjectFault) or fault.of in self.request.path
                if applies and fault.method == method and fault.times > 0:
                    fault.times -= 1
                    return fault
        return None

    def path(self, path: str) -> StoragePath:
        """Return a path in the store, through the proxy."""
        return StoragePath(f"s3://{BUCKET}/{path}{self.query}")


class _Handler(fault_proxy._Handler):
    proxy: FaultyStore

    def do_GET(self) -> None:  # noqa: N802 -- the base class's name
        self.proxy.request.path = self.path
        super().do_GET()

    do_HEAD = do_PUT = do_POST = do_DELETE = do_GET  # noqa: N815 -- the base class's names


@contextlib.contextmanager
def running() -> Iterator[FaultyStore]:
    """Run a store with an empty bucket, behind the proxy."""
    moto = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    moto.start()
    _, upstream = moto.get_host_and_port()
    fs, name = pafs.FileSystem.from_uri(
        f"s3://{BUCKET}?scheme=http&endpoint_override=127.0.0.1:{upstream}&region=us-east-1&allow_bucket_creation=true"
    )
    fs.create_dir(name)
    faulty_store = FaultyStore(upstream)
    server = fault_proxy._Server(("127.0.0.1", 0), type("Bound", (_Handler,), {"proxy": faulty_store}))
    faulty_store.port = int(server.server_address[1])
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    yield faulty_store
    faulty_store.closing.set()
    server.shutdown()
    server.server_close()
    thread.join()
    moto.stop()
