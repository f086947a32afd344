"""One Ray for a run: the cluster that is named, or a local one that starts by itself and stops at the end.

A local Ray is given at least four logical CPUs: with two, Ray Train's workers hold every CPU and Ray Data's tasks
behind them wait for ever. It listens on loopback, with Ray's token authentication on unless the caller's environment
says otherwise.
"""

import contextlib
import logging
import os
import shutil
import socket
from collections.abc import Iterator
from pathlib import Path

import ray
from ray.data import DataContext

from raystp.errors import ConfigError

logger = logging.getLogger("raystp")

LOGICAL_CPUS = 4
"""The least number of logical CPUs of a local Ray."""

CONNECT_S = 10.0

SHARED = Path("/dev/shm")
LEAST_SHARED = 1 << 30
"""With fewer bytes of shared memory Ray keeps its objects in files under its temporary folder, without a word here."""


@contextlib.contextmanager
def session(address: str | None = None) -> Iterator[None]:
    """Join the cluster at `address`, or start a local Ray that ends with this.

    Without an address, Ray's own RAY_ADDRESS counts; inside another session, this is that session. Raises ConfigError
    where no cluster answers at the address.
    """
    if ray.is_initialized():
        yield
        return
    address = address or os.environ.get("RAY_ADDRESS")
    if address:
        _join(address)
    else:
        _start()
    context = DataContext.get_current()
    context.enable_progress_bars = False  # the steps print their own
    context.print_on_execution_start = False
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    try:
        yield
    finally:
        ray.shutdown()


def _join(address: str) -> None:
    try:
        _knock(address)
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
    except (OSError, RuntimeError, ValueError) as error:
        reason = str(error).partition("\n")[0]
        msg = f"run.address: no Ray cluster answers at {address!r} ({reason}); leave it out for a local Ray"
        raise ConfigError(msg) from error


def _knock(address: str) -> None:
    """Raise OSError where nothing listens at a host and port: Ray itself would go on trying for minutes."""
    host, colon, port = address.rpartition("://")[2].rpartition(":")
    if colon and port.isdigit():
        socket.create_connection((host.strip("[]"), int(port)), timeout=CONNECT_S).close()


def _start() -> None:
    if SHARED.is_dir() and (free := shutil.disk_usage(SHARED).free) < LEAST_SHARED:
        logger.warning(
            f"{SHARED} has {free / 1e6:,.0f} MB free, so Ray keeps what its processes share in files, which is slower: "
            "give Docker --shm-size=4g, or a pod a volume of medium Memory there"
        )
    ray.init(
        address="local",
        num_cpus=max(LOGICAL_CPUS, os.cpu_count() or 1),
        include_dashboard=False,
        log_to_driver=False,
        logging_level=logging.ERROR,
    )


def is_submitted() -> bool:
    """Say whether this process is the driver of a job that was submitted to a cluster."""
    return "RAY_JOB_CONFIG_JSON_ENV_VAR" in os.environ  # Ray's job supervisor sets it, by this very name


def cluster_cpus() -> int:
    """Return the logical CPUs of the cluster that this session is on."""
    return _resource("CPU")


def cluster_gpus() -> int:
    """Return the GPUs of the cluster that this session is on."""
    return _resource("GPU")


def _resource(name: str) -> int:
    return int(ray.cluster_resources().get(name, 0))  # type: ignore[no-untyped-call]  # Ray ships it without types
