"""An object store on the host of a network, the smoke cohort in it, and the comparison of two runs' stores."""

import contextlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import boto3
import pyarrow as pa
import pyarrow.parquet as pq
from moto.server import ThreadedMotoServer

from tests.faults.cohort import VARIES
from tests.faults.namespaces.machines import Network

BUCKET = "cohort"


class Store:
    """A bucket that the machines of a network reach."""

    def __init__(self, endpoint: str) -> None:
        self.endpoint = endpoint
        self._client = boto3.client(
            "s3",
            endpoint_url=f"http://{endpoint}",
            region_name="us-east-1",
            aws_access_key_id="key",
            aws_secret_access_key="secret",
        )
        self._client.create_bucket(Bucket=BUCKET)

    def uri(self, path: str) -> str:
        """Return the URI of a path, as raystp's configs take it."""
        return f"{self.location(path)}?scheme=http&endpoint_override={self.endpoint}&region=us-east-1"

    def location(self, path: str) -> str:
        """Return what raystp shows of a path's URI."""
        return f"s3://{BUCKET}/{path}"

    def upload(self, folder: Path, prefix: str) -> None:
        for file in sorted(folder.rglob("*")):
            if file.is_file():
                self._client.upload_file(str(file), BUCKET, f"{prefix}/{file.relative_to(folder).as_posix()}")

    def names(self, prefix: str) -> list[str]:
        """Return all paths below the prefix."""
        pages = self._client.get_paginator("list_objects_v2").paginate(Bucket=BUCKET, Prefix=f"{prefix}/")
        return [found["Key"].removeprefix(f"{prefix}/") for page in pages for found in page.get("Contents", [])]

    def objects(self, prefix: str) -> dict[str, bytes]:
        """Return path below the prefix -> content."""
        return {
            path: self._client.get_object(Bucket=BUCKET, Key=f"{prefix}/{path}")["Body"].read()
            for path in self.names(prefix)
        }


@contextlib.contextmanager
def running_store(network: Network) -> Iterator[Store]:
    """Run an object store on the host's address of the network."""
    moto = ThreadedMotoServer(ip_address=network.host, port=0, verbose=False)
    moto.start()
    yield Store(f"{network.host}:{moto.get_host_and_port()[1]}")
    moto.stop()


def committed(paths: Iterable[str]) -> list[str]:
    """Return the commit records of `embed`, one for each finished unit."""
    return [path for path in paths if path.startswith("embed/") and "/commits/" in path]


RANDOM_ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
"""Names of a page's elements, drawn anew for each page."""
NUMBER = re.compile(r"\d+(?:[.:]\d+)*(?: ?(?:us|ms|s|min|h)\b)?")


def content(objects: Mapping[str, bytes], location: str) -> dict[str, Any]:
    """Return the results in a store: path -> bytes; without the store's own `location` and durations.

    Pages state times and rates, so they are compared without numbers: these are in other files. Attempt markers and the
    folders that other tools mark with empty objects are no results.
    """
    found: dict[str, Any] = {}
    for path, value in objects.items():
        if path.endswith("manifest.json"):
            values = json.loads(value.decode().replace(location, "store"))
            found[path] = {key: one for key, one in values.items() if key not in VARIES}
            values.get("notes", {}).get("score", {}).pop("seconds", None)
        elif path.endswith(".html"):
            found[path] = NUMBER.sub("0", RANDOM_ID.sub("id", value.decode().replace(location, "store")))
        elif path.endswith("epochs.parquet"):
            found[path] = pq.read_table(pa.BufferReader(value)).drop_columns("seconds").to_pylist()
        elif value and "/attempts/" not in path:
            found[path] = value
    return found
