"""The Ray session of a run: an existing cluster, or a local Ray that stops at the end.

A local Ray gets at least four logical CPUs: with two, Ray Train's workers hold all CPUs and the Ray Data tasks that
they wait for never start. It listens on loopback, with Ray's token authentication on, unless the environment turns it
off.
"""

import contextlib
import contextvars
import logging
import os
import shutil
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ray

from raystp.cluster import json_logs
from raystp.cluster.environment import explain_start, explain_token
from raystp.cluster.native_stderr import Recording, recorded
from raystp.errors import ClusterError, ConfigError

logger = logging.getLogger("raystp")

MIN_CPUS = 4
"""Minimum number of logical CPUs of a local Ray."""

CONNECT_TIMEOUT_S = 10.0

_STARTED_HERE: contextvars.ContextVar[bool] = contextvars.ContextVar("started_here", default=False)
"""Whether raystp started this Ray, which is local and never grows."""

SHARED_MEMORY = Path("/dev/shm")
MIN_SHARED_BYTES = 1 << 30
"""With less shared memory Ray keeps its objects in files in its temporary folder, and does not say so here."""


@contextlib.contextmanager
def session(address: str | None = None) -> Iterator[None]:
    """Connect to the cluster at `address`, or start a local Ray and stop it at the end.

    The default address is Ray's RAY_ADDRESS. Inside another session, that session is used. Raises ConfigError if no
    cluster responds at the address, or one of another version; ClusterError if Ray cannot start here.
    """
    if ray.is_initialized():
        yield
        return
    address = address or os.environ.get("RAY_ADDRESS")
    if address:
        _connect(address)
    else:
        _start()
    try:
        with joined(is_local=not address):
            yield
    finally:
        ray.shutdown()


@contextlib.contextmanager
def joined(*, is_local: bool) -> Iterator[None]:
    """Make this process, which is connected to Ray, ready for steps; `is_local` says that raystp started this Ray."""
    started = _STARTED_HERE.set(is_local)
    try:
        yield
    finally:
        _STARTED_HERE.reset(started)


def ray_data() -> Any:
    """Return the module `ray.data`, set to print nothing. It is imported here: that takes a second."""
    from ray import data  # noqa: PLC0415 -- a few slides do not need it

    context = data.DataContext.get_current()
    context.enable_progress_bars = False  # the steps print their own progress
    context.print_on_execution_start = False
    from ray._private.log import PlainRayHandler  # noqa: PLC0415 -- the same

    their_logger = logging.getLogger("ray.data")
    their_logger.setLevel(logging.ERROR)
    for handler in their_logger.handlers:
        if isinstance(handler, PlainRayHandler):  # what prints; not their log file, nor the handler of another
            handler.setLevel(logging.CRITICAL)  # an error is raised too
    return data


def is_local_ray() -> bool:
    """Return whether raystp itself started the Ray of this session."""
    return _STARTED_HERE.get()


def _connect(address: str) -> None:
    native = Recording()
    try:
        check_reachable(address)
        with recorded() as native:  # Ray repeats a refused token there for half a minute, and not in its exception
            ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR, runtime_env=_worker_logs())
    except Exception as error:
        reason = " ".join(str(error).split())
        if "ersion mismatch" in reason:
            msg = f"run.address: the cluster at {address!r} runs other versions ({reason}): install the same ones here"
        elif (refusal := explain_token(f"{reason} {native.text}")) is not None:
            msg = f"run.address: the Ray cluster at {address!r} {refusal}"
        else:
            msg = f"run.address: no Ray cluster responds at {address!r} ({reason}); omit it to start a local Ray"
        raise ConfigError(msg) from error
    sys.stderr.write(native.text)


def check_reachable(address: str) -> None:
    """Raise OSError if nothing listens at `host:port`; Ray itself would retry for minutes."""
    host, colon, port = address.rpartition("://")[2].rpartition(":")
    if colon and port.isdigit():
        socket.create_connection((host.strip("[]"), int(port)), timeout=CONNECT_TIMEOUT_S).close()


def _start() -> None:
    if SHARED_MEMORY.is_dir() and (free := shutil.disk_usage(SHARED_MEMORY).free) < MIN_SHARED_BYTES:
        logger.warning(
            f"{SHARED_MEMORY} has only {free / 1e6:,.0f} MB free: Ray uses slower files for shared objects. "
            f"Start Docker with --shm-size=4g, or mount a volume of medium Memory at {SHARED_MEMORY} in a pod"
        )
    try:
        ray.init(
            address="local",
            num_cpus=max(MIN_CPUS, os.cpu_count() or 1),
            include_dashboard=False,
            log_to_driver=False,
            logging_level=logging.ERROR,
            runtime_env=_worker_logs(),
        )
    except Exception as error:
        ray.shutdown()  # of what has started already
        raise ClusterError(explain_start(error)) from error


def _worker_logs() -> dict[str, str] | None:
    """Return the environment in which workers write JSON to their logs, if this process does."""
    return {"worker_process_setup_hook": json_logs.WORKER_HOOK} if json_logs.are_on(logger) else None


def is_submitted() -> bool:
    """Return whether this process is the driver of a job submitted to a cluster."""
    return "RAY_JOB_CONFIG_JSON_ENV_VAR" in os.environ  # set by Ray's job supervisor


def cluster_cpus() -> int:
    """Return the logical CPUs of this session's cluster."""
    return _resource("CPU")


def cluster_gpus() -> int:
    """Return the GPUs of this session's cluster."""
    return _resource("GPU")


def check_resources(*, cpus: float | int, gpus: float | int) -> None:
    """Raise ConfigError if no node has the CPUs and GPUs of one process, for which Ray would wait without end.

    A cluster may grow, so there it is a warning.
    """
    nodes: list[dict[str, Any]] = [node["Resources"] for node in ray.nodes() if node["Alive"]]  # type: ignore[no-untyped-call]  # Ray ships it without types
    if any(node.get("CPU", 0) >= cpus and node.get("GPU", 0) >= gpus for node in nodes):
        return
    most = {name: max((int(node.get(name, 0)) for node in nodes), default=0) for name in ("CPU", "GPU")}
    msg = (
        f"one process needs {cpus:g} logical CPUs and {gpus:g} GPUs, and the largest node of Ray has {most['CPU']} and "
        f"{most['GPU']}"
    )
    if is_local_ray():
        advice = "ask for fewer in `run`, or connect to a cluster that has them with run.address"
        raise ConfigError(f"{msg}: {advice}")
    logger.warning(f"{msg}: the work waits until a larger node joins the cluster")


def _resource(name: str) -> int:
    return int(ray.cluster_resources().get(name, 0))  # type: ignore[no-untyped-call]  # Ray ships it without types
