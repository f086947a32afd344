"""The service on Ray Serve: replicas, batching, start and stop.

Take a service plan (handler factory and limits); know nothing about models. `serve_until` runs the service in the
foreground; `serve_config` writes it in Serve's schema, for `serve deploy` and KubeRay.
"""

import asyncio
import contextlib
import logging
import re
import signal
import socket
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import Any, TypeAlias

import ray
import yaml
from ray import serve
from ray.serve.schema import ServeDeploySchema

from raystp import errors
from raystp.cluster.serving.app import make_app
from raystp.cluster.serving.guard import AccessPolicy, RequestGuard, proxy_environment
from raystp.cluster.serving.messages import (
    ImputeRequest,
    ImputeResponse,
    PreparedRequest,
    RequestHandler,
    RequestLimits,
)
from raystp.cluster.serving.metrics import ServiceMetrics
from raystp.errors import ConfigError, RaystpError

Application: TypeAlias = serve.Application

NAME = "raystp"
DEPLOYMENT = "Replica"
READY_TIMEOUT_S, STOP_TIMEOUT_S = 60.0, 4.0
CONSTRUCTOR_TRIES = 1
"""A replica that cannot open its model fails with the same error each time."""
QUIET = {"log_level": "WARNING", "enable_access_log": False}
SHUTDOWN = {"graceful_shutdown_timeout_s": 3.0, "graceful_shutdown_wait_loop_s": 0.1}


@dataclass(frozen=True)
class ServicePlan:
    """What a service runs and its limits."""

    open_handler: Callable[[], RequestHandler[Any]]
    """Importable, or a partial of an importable function; called in every replica."""
    policy: AccessPolicy
    limits: RequestLimits
    batch_tiles: int
    batch_wait_s: float
    replicas: int = 1
    cpus: float = 1.0
    gpus: float = 0.0


@dataclass(frozen=True)
class ListenAddress:
    """Where the service listens."""

    host: str
    port: int
    every_node: bool = False

    @property
    def url(self) -> str:
        """The URL for a client on this machine."""
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(self.host, self.host)
        return f"http://[{host}]:{self.port}" if ":" in host else f"http://{host}:{self.port}"

    def options(self) -> dict[str, str | int]:
        """Return host and port as Serve's HTTP options."""
        return {"host": self.host, "port": self.port}

    @property
    def proxies(self) -> str:
        """The nodes on which Serve's proxies run."""
        return "EveryNode" if self.every_node else "HeadOnly"


def count_tiles(requests: list[PreparedRequest]) -> int:
    """Return the size of a batch in tiles."""
    return sum(request.tiles for request in requests)


@serve.ingress()
class Replica:
    """One process with an open handler; it predicts waiting requests in batches."""

    def __init__(self, plan: ServicePlan) -> None:
        self._plan = plan
        self._handler = plan.open_handler()
        self._info = self._handler.info()
        self._metrics = ServiceMetrics(serve.get_replica_context().replica_id.unique_id)
        self._thread = ThreadPoolExecutor(1, "handler")  # encoder and index are used by one thread at a time
        batched: Any = self.impute_batch  # Serve's types omit the setters of its decorator
        batched.set_max_batch_size(plan.batch_tiles)
        batched.set_batch_wait_timeout_s(plan.batch_wait_s)

    def __serve_build_asgi_app__(self) -> RequestGuard:
        """Return the replica's application, behind its guard."""
        app = make_app(self, self._info["versions"]["raystp"])
        return RequestGuard(app, self._plan.policy, self._metrics.record_request)

    def info(self) -> dict[str, object]:
        """Return the handler's information and the limits."""
        policy, limits = self._plan.policy, asdict(self._plan.limits)
        limits |= {"body_bytes": policy.body_bytes, "requests": policy.requests, "deadline_s": policy.deadline_s}
        return {**self._info, "limits": limits, "versions": {**self._info["versions"], "ray": ray.__version__}}

    def metrics(self) -> bytes:
        """Return this replica's metrics."""
        return self._metrics.text()

    async def impute(self, request: ImputeRequest) -> tuple[ImputeResponse, int]:
        """Predict a request in a batch with others that wait; return the response and the batch's requests."""
        self._plan.limits.check(request, len(self._info["genes"]))
        prepared = await asyncio.to_thread(self._handler.prepare, request)
        response, batch_size = await self.impute_batch(prepared)
        if isinstance(response, RaystpError):
            raise response
        return response, batch_size

    @serve.batch(batch_size_fn=count_tiles)
    async def impute_batch(self, requests: list[PreparedRequest]) -> list[tuple[ImputeResponse | RaystpError, int]]:
        """Predict a batch."""
        self._metrics.record_batch(len(requests), count_tiles(requests))
        loop = asyncio.get_running_loop()
        responses = await loop.run_in_executor(self._thread, self._handler.impute, requests)
        return [(response, len(requests)) for response in responses]


def application(plan: ServicePlan) -> Application:
    """Return the service as a Serve application."""
    deployment: Any = serve.deployment(Replica, name=DEPLOYMENT)
    options = {**_options(plan), "max_constructor_retry_count": CONSTRUCTOR_TRIES}
    bound: Application = deployment.options(**options).bind(plan)
    return bound


def serve_config(plan: ServicePlan, address: ListenAddress, import_path: str, arguments: Mapping[str, object]) -> str:
    """Return the service in Serve's schema, as YAML; `import_path` names a builder that takes `arguments`."""
    app = {"name": NAME, "route_prefix": "/", "import_path": import_path, "args": dict(arguments)}
    values = {
        "proxy_location": address.proxies,
        "http_options": address.options(),
        "controller_options": {"runtime_env": {"env_vars": proxy_environment(plan.policy)}},
        "logging_config": QUIET,
        "applications": [app | {"deployments": [{"name": DEPLOYMENT, **_options(plan)}]}],
    }
    ServeDeploySchema.model_validate(values)
    return yaml.safe_dump(values, sort_keys=False)


def serve_until(plan: ServicePlan, address: ListenAddress, on_ready: Callable[[], None]) -> None:
    """Serve until SIGTERM or SIGINT; call `on_ready` once the service answers requests.

    Raises the error that a replica raised while it opened, and ConfigError for a port in use.
    """
    _check_free(address)
    logging.getLogger("ray.serve").setLevel(logging.ERROR)
    with _interrupted_by_sigterm(), contextlib.suppress(KeyboardInterrupt):
        try:
            _start(plan, address)
            _wait_until_ready(address)
            on_ready()
            while True:
                time.sleep(3600)
        finally:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            _stop(address)


def _start(plan: ServicePlan, address: ListenAddress) -> None:
    if serve.status().proxies:
        msg = (
            "run.address: that cluster already runs Ray Serve; "
            "write the service's config with run.config_file and apply it with `serve deploy`"
        )
        raise ConfigError(msg)
    serve.start(
        proxy_location=address.proxies,
        http_options=address.options(),
        logging_config=QUIET,
        controller_options={"runtime_env": {"env_vars": proxy_environment(plan.policy)}},
    )
    try:
        serve.run(application(plan), name=NAME, route_prefix="/", logging_config=QUIET)
    except RuntimeError as error:
        service = serve.status().applications.get(NAME)
        messages = [one.message for one in service.deployments.values()] if service else []
        raise _replica_error("\n".join([str(error), *messages])) from error


def _stop(address: ListenAddress) -> None:
    """Let the replicas finish their active requests; a local Ray, and Serve with it, stops right after."""
    if address.every_node:
        serve.shutdown()  # type: ignore[no-untyped-call]  # Ray ships it without types
    elif NAME in serve.status().applications:
        serve.delete(NAME, _blocking=False)
        until = time.monotonic() + STOP_TIMEOUT_S
        while NAME in serve.status().applications and time.monotonic() < until:
            time.sleep(0.1)


def _options(plan: ServicePlan) -> dict[str, object]:
    return {
        "num_replicas": plan.replicas,
        "max_ongoing_requests": plan.policy.requests,
        "max_queued_requests": plan.policy.requests,
        "ray_actor_options": {"num_cpus": plan.cpus, "num_gpus": plan.gpus},
        **SHUTDOWN,
    }


def _replica_error(trace: str) -> RaystpError:
    """Return the error that a replica raised while it opened, parsed from Serve's message."""
    found = re.findall(r"raystp\.errors\.(\w+): (.+)", trace)
    if not found:
        return ConfigError(f"Serve could not start the service: {trace.strip().splitlines()[-1]}")
    name, message = found[-1]
    kind: type[RaystpError] = getattr(errors, name, ConfigError)
    return kind(message)


def _wait_until_ready(address: ListenAddress) -> None:
    """Wait until the proxy routes requests to the replicas; raise ConfigError after READY_TIMEOUT_S."""
    until = time.monotonic() + READY_TIMEOUT_S
    while time.monotonic() < until:
        with contextlib.suppress(OSError), urllib.request.urlopen(f"{address.url}/readyz", timeout=5):
            return
        time.sleep(0.1)
    msg = f"{address.url}/readyz did not respond within {READY_TIMEOUT_S:g} s of Serve's start: see Ray Serve's logs"
    raise ConfigError(msg)


def _check_free(address: ListenAddress) -> None:
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address.host, address.port))
        except OSError as error:
            msg = f"run.port: cannot listen on {address.host}:{address.port} ({error.strerror}); choose another port"
            raise ConfigError(msg) from None


@contextlib.contextmanager
def _interrupted_by_sigterm() -> Iterator[None]:
    """Raise KeyboardInterrupt for SIGTERM too."""
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        for number in before:
            signal.signal(number, signal.default_int_handler)
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
