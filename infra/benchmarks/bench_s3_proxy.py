"""A proxy before an object store that is far away: each answer begins late, and all answers share a bandwidth.

    python bench_s3_proxy.py STORE_PORT

It prints its own port. `GET /-/LATENCY_S/BYTES_PER_S` sets both (0: no limit) and answers with what went through since
it was last asked, as JSON: `requests`, `body_bytes`, and `store_s`, the store's own time for its answers.
"""

import asyncio
import json
import sys
import time
from contextlib import suppress
from dataclasses import asdict, dataclass, field

CHUNK = 1 << 16
ASK = b"/-/"


@dataclass
class Counts:
    """What went through."""

    requests: int = 0
    body_bytes: int = 0
    store_s: float = 0.0


@dataclass
class Proxy:
    """One proxy; it knows GET and HEAD, which is all that reading asks."""

    store: int
    latency_s: float = 0.0
    bytes_per_s: float = 0.0
    free_at: float = 0.0
    """When the line is free for the next bytes."""
    counts: Counts = field(default_factory=Counts)

    async def serve(self, client: asyncio.StreamReader, back: asyncio.StreamWriter) -> None:
        """Answer one connection's requests, over one connection to the store."""
        with suppress(ConnectionError, asyncio.IncompleteReadError):
            store, onward = await asyncio.open_connection("127.0.0.1", self.store)
            while head := await client.readuntil(b"\r\n\r\n"):
                target = head.split(b" ", 2)[1]
                if target.startswith(ASK):
                    back.write(self._told(target))
                    continue
                await asyncio.sleep(self.latency_s)
                await self._forward(head, (store, onward), back)
        back.close()

    def _told(self, target: bytes) -> bytes:
        _, _, latency, rate = target.decode().split("/")
        body = json.dumps(asdict(self.counts)).encode()
        self.counts, self.latency_s, self.bytes_per_s = Counts(), float(latency), float(rate)
        return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)

    async def _forward(
        self, head: bytes, store: tuple[asyncio.StreamReader, asyncio.StreamWriter], back: asyncio.StreamWriter
    ) -> None:
        counts, began = self.counts, time.monotonic()
        store[1].write(head)
        answer = await store[0].readuntil(b"\r\n\r\n")
        counts.store_s += time.monotonic() - began
        counts.requests += 1
        back.write(answer)
        left = 0 if head.startswith(b"HEAD") else _length(answer)
        while left:
            content = await store[0].readexactly(min(left, CHUNK))
            await self._pass(len(content))
            back.write(content)
            await back.drain()
            left -= len(content)
            counts.body_bytes += len(content)

    async def _pass(self, count: int) -> None:
        """Wait until so many bytes have gone over the line."""
        if self.bytes_per_s:
            self.free_at = max(self.free_at, time.monotonic()) + count / self.bytes_per_s
            await asyncio.sleep(self.free_at - time.monotonic())


def _length(head: bytes) -> int:
    for line in head.split(b"\r\n"):
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length":
            return int(value)
    return 0


async def main() -> None:
    """Serve until the process is ended."""
    server = await asyncio.start_server(Proxy(int(sys.argv[1])).serve, "127.0.0.1", 0, limit=1 << 20, backlog=128)
    sys.stdout.write(f"{server.sockets[0].getsockname()[1]}\n")
    sys.stdout.flush()
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main())
