"""The service on Ray Serve: replicas that answer over HTTP, and what Serve is told of them.

In goes a plan: what opens a replica's answers, and the bounds; what they know is no affair of this module.
`serve_until` runs it in the foreground, `serve_config` says it in Serve's own schema, for `serve deploy` and KubeRay.
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
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import Any

import ray
import yaml
from ray import serve
from ray.serve.schema import ServeDeploySchema

from raystp import errors
from raystp.cluster.serving.app import make_app
from raystp.cluster.serving.auth import AccessPolicy
from raystp.cluster.serving.messages import (
    ImputeRequest,
    ImputeResponse,
    PreparedRequest,
    RequestHandler,
    RequestLimits,
)
from raystp.cluster.serving.metrics import ServiceMetrics
from raystp.cluster.serving.middleware import RequestGuard, hooks
from raystp.errors import ConfigError, RaystpError

NAME = "raystp"
DEPLOYMENT = "Replica"
READY_WITHIN_S, ENDED_WITHIN_S = 60.0, 4.0
TRIES = 1
"""How often a replica that cannot open its model is started: what it says is the same each time."""
QUIET = {"log_level": "WARNING", "enable_access_log": False}
GRACE = {"graceful_shutdown_timeout_s": 3.0, "graceful_shutdown_wait_loop_s": 0.1}


@dataclass(frozen=True)
class ServicePlan:
    """All that is known of a service before it runs."""

    opened: Callable[[], RequestHandler[Any]]
    """Importable, or a partial of such: called in every replica."""
    door: AccessPolicy
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
        """The address as a client on this machine has it."""
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(self.host, self.host)
        return f"http://[{host}]:{self.port}" if ":" in host else f"http://{host}:{self.port}"

    def options(self) -> dict[str, Any]:
        """Return these as Serve's own options."""
        return {"host": self.host, "port": self.port}

    @property
    def proxies(self) -> str:
        """Where Serve's proxies run."""
        return "EveryNode" if self.every_node else "HeadOnly"


def tiles_of(questions: list[PreparedRequest]) -> int:
    """Return the size of a batch."""
    return sum(question.tiles for question in questions)


@serve.ingress()
class Replica:
    """One process with the answers open: it joins the questions that are there, and answers them together."""

    def __init__(self, plan: ServicePlan) -> None:
        self._plan = plan
        self._answers = plan.opened()
        self._about = self._answers.about()
        self._meters = ServiceMetrics(serve.get_replica_context().replica_id.unique_id)
        self._one = ThreadPoolExecutor(1, "answers")  # encoder and bank are asked by one thread at a time
        joined: Any = self.together  # Serve's decorator has setters that its types do not tell of
        joined.set_max_batch_size(plan.batch_tiles)
        joined.set_batch_wait_timeout_s(plan.batch_wait_s)

    def __serve_build_asgi_app__(self) -> RequestGuard:
        """Return the application that this replica answers with."""
        app = make_app(self, str(self._about["versions"]["raystp"]))
        return RequestGuard(app, self._plan.door, self._meters.request)

    def info(self) -> dict[str, Any]:
        """Return what is known of the model, and the limits."""
        door, limits = self._plan.door, asdict(self._plan.limits)
        limits |= {"body_bytes": door.body_bytes, "requests": door.requests, "deadline_s": door.deadline_s}
        return {**self._about, "limits": limits, "versions": {**self._about["versions"], "ray": ray.__version__}}

    def metrics(self) -> bytes:
        """Return this replica's counts."""
        return self._meters.text()

    async def impute(self, asked: ImputeRequest) -> tuple[ImputeResponse, int]:
        """Answer a question, together with others that wait."""
        self._plan.limits.check(asked, len(self._about["genes"]))
        ready = await asyncio.to_thread(self._answers.prepare, asked)
        answered, together = await self.together(ready)
        if isinstance(answered, RaystpError):
            raise answered
        return answered, together

    @serve.batch(batch_size_fn=tiles_of)
    async def together(self, questions: list[PreparedRequest]) -> list[tuple[ImputeResponse | RaystpError, int]]:
        """Answer questions together."""
        self._meters.batch(len(questions), tiles_of(questions))
        loop = asyncio.get_running_loop()
        answers = await loop.run_in_executor(self._one, self._answers.answer, questions)
        return [(answer, len(questions)) for answer in answers]


def application(plan: ServicePlan) -> serve.Application:
    """Return the service as an application of Serve."""
    deployment: Any = serve.deployment(Replica, name=DEPLOYMENT)
    bound: serve.Application = deployment.options(**_options(plan), max_constructor_retry_count=TRIES).bind(plan)
    return bound


def serve_config(plan: ServicePlan, at: ListenAddress, import_path: str, arguments: dict[str, Any]) -> str:
    """Return the service in Serve's own schema, as YAML; `import_path` names a builder that takes `arguments`."""
    one = {"name": NAME, "route_prefix": "/", "import_path": import_path, "args": arguments}
    values = {
        "proxy_location": at.proxies,
        "http_options": at.options(),
        "controller_options": {"runtime_env": {"env_vars": hooks(plan.door)}},
        "logging_config": QUIET,
        "applications": [one | {"deployments": [{"name": DEPLOYMENT, **_options(plan)}]}],
    }
    ServeDeploySchema.model_validate(values)
    return yaml.safe_dump(values, sort_keys=False)


def serve_until(plan: ServicePlan, at: ListenAddress, ready: Callable[[], None]) -> None:
    """Serve until SIGTERM or SIGINT comes; calls `ready` once the service answers.

    Raises what kept a replica from opening, as it said it, and ConfigError where the port is taken.
    """
    _check_free(at)
    logging.getLogger("ray.serve").setLevel(logging.ERROR)
    with _stoppable(), contextlib.suppress(KeyboardInterrupt):
        try:
            _start(plan, at)
            _await_answer(at)
            ready()
            while True:
                time.sleep(3600)
        finally:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            _end(at)


def _start(plan: ServicePlan, at: ListenAddress) -> None:
    if serve.status().proxies:
        msg = "run.address: Ray Serve runs on that cluster already; write the service with run.written and deploy that"
        raise ConfigError(msg)
    serve.start(
        proxy_location=at.proxies,
        http_options=at.options(),
        logging_config=QUIET,
        controller_options={"runtime_env": {"env_vars": hooks(plan.door)}},
    )
    try:
        serve.run(application(plan), name=NAME, route_prefix="/", logging_config=QUIET)
    except RuntimeError as error:
        service = serve.status().applications.get(NAME)
        told = [one.message for one in service.deployments.values()] if service else []
        raise _said("\n".join([str(error), *told])) from error


def _end(at: ListenAddress) -> None:
    """Let the replicas finish what they have begun; a local Ray, and Serve with it, ends a moment later anyway."""
    if at.every_node:
        serve.shutdown()  # type: ignore[no-untyped-call]  # Ray ships it without types
    elif NAME in serve.status().applications:
        serve.delete(NAME, _blocking=False)
        until = time.monotonic() + ENDED_WITHIN_S
        while NAME in serve.status().applications and time.monotonic() < until:
            time.sleep(0.1)


def _options(plan: ServicePlan) -> dict[str, Any]:
    inside = plan.door.requests
    return {
        "num_replicas": plan.replicas,
        "max_ongoing_requests": inside,
        "max_queued_requests": inside,
        "ray_actor_options": {"num_cpus": plan.cpus, "num_gpus": plan.gpus},
        **GRACE,
    }


def _said(trace: str) -> RaystpError:
    """Return the error that a replica raised as it opened, out of Serve's account of it."""
    found = re.findall(r"raystp\.errors\.(\w+): (.+)", trace)
    if not found:
        return ConfigError(f"Serve could not start the service: {trace.strip().splitlines()[-1]}")
    name, sentence = found[-1]
    kind: type[RaystpError] = getattr(errors, name, ConfigError)
    return kind(sentence)


def _await_answer(at: ListenAddress) -> None:
    """Wait until the proxy has heard of the replicas."""
    until = time.monotonic() + READY_WITHIN_S
    while time.monotonic() < until:
        with contextlib.suppress(OSError), urllib.request.urlopen(f"{at.url}/readyz", timeout=5):
            return
        time.sleep(0.1)
    msg = f"{at.url}/readyz did not answer for {READY_WITHIN_S:g} s after Serve had started: see the logs of Ray Serve"
    raise ConfigError(msg)


def _check_free(at: ListenAddress) -> None:
    family = socket.AF_INET6 if ":" in at.host else socket.AF_INET
    with socket.socket(family) as one:
        one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            one.bind((at.host, at.port))
        except OSError as error:
            msg = f"run.port: {at.host}:{at.port} cannot be listened on ({error.strerror}); another would do"
            raise ConfigError(msg) from None


@contextlib.contextmanager
def _stoppable() -> Iterator[None]:
    """Let SIGTERM end what SIGINT ends."""
    before = {one: signal.getsignal(one) for one in (signal.SIGTERM, signal.SIGINT)}
    try:
        for one in before:
            signal.signal(one, signal.default_int_handler)
        yield
    finally:
        for one, handler in before.items():
            signal.signal(one, handler)
