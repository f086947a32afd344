"""An object store over HTTP behind the proxy that misbehaves, here towards the one object or towards all."""

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
class OfOne(Fault):
    """A fault of the objects whose path has this in it."""

    of: str = ""


@dataclass
class Door(Proxy):
    """The proxy; `door.add("cut", 1000, of="/A.svs")` makes the reads of one object break off."""

    here: threading.local = field(default_factory=threading.local)

    def add(self, kind: str, at: int = 0, **more: Any) -> None:
        self.faults.append(OfOne(kind, at, **more))

    def take(self, method: str) -> Fault | None:
        with self.lock:
            for fault in self.faults:
                ours = not isinstance(fault, OfOne) or fault.of in self.here.path
                if ours and fault.method == method and fault.times > 0:
                    fault.times -= 1
                    return fault
        return None

    def place(self, path: str) -> StoragePath:
        """Return a place in the store, as seen through this door."""
        return StoragePath(f"s3://{BUCKET}/{path}{self.query}")


class _Handler(fault_proxy._Handler):
    proxy: Door

    def do_GET(self) -> None:  # noqa: N802 -- the base class names it so
        self.proxy.here.path = self.path
        super().do_GET()

    do_HEAD = do_PUT = do_POST = do_DELETE = do_GET  # noqa: N815 -- the base class names them so


@contextlib.contextmanager
def running() -> Iterator[Door]:
    """Run a store with an empty bucket, and a door to it."""
    moto = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    moto.start()
    _, upstream = moto.get_host_and_port()
    fs, name = pafs.FileSystem.from_uri(
        f"s3://{BUCKET}?scheme=http&endpoint_override=127.0.0.1:{upstream}&region=us-east-1&allow_bucket_creation=true"
    )
    fs.create_dir(name)
    door = Door(upstream)
    server = fault_proxy._Server(("127.0.0.1", 0), type("Bound", (_Handler,), {"proxy": door}))
    door.port = int(server.server_address[1])
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    yield door
    door.closing.set()
    server.shutdown()
    server.server_close()
    thread.join()
    moto.stop()
