"""serve: a model + its index -> an HTTP service on Ray Serve, in the foreground until SIGTERM or SIGINT.

It leaves no artifact. What is amiss with model, index, encoder or token is told before Serve starts.
"""

import functools
import logging
from typing import Any

from raystp.cluster.serving import deployment as service
from raystp.cluster.serving.auth import AccessPolicy, BearerToken
from raystp.cluster.serving.messages import RequestLimits
from raystp.cluster.session import session
from raystp.errors import ConfigError
from raystp.index.opened import ReferenceIndex
from raystp.steps.impute.imputer import RemoteIndex, open_remote_index
from raystp.steps.serve.answers import checked, open_handler
from raystp.steps.serve.config import ServeConfig
from raystp.storage import StoragePath

logger = logging.getLogger("raystp")

STEP = "serve"
CONFIG = ServeConfig


def run(config: ServeConfig) -> str:
    """Serve until stopped, or write the service as a file; return a sentence of what was done."""
    if config.run.written is not None:
        config.check_absolute()
    plan, at = _plan(config), _at(config)
    _, index = checked(config)
    if config.run.written is not None:
        return _write(config, plan, at)
    with session(config.run.address):
        bank = open_remote_index(index, config.run.actors, replicas=config.run.copies) if config.run.actors else None
        guarded = "a bearer token is wanted" if plan.door.token else "no token is wanted"
        rows = index.manifest.rows["rows"]
        service.serve_until(
            _plan(config, bank),
            at,
            lambda: logger.info(f"serve: {at.url} answers from {rows} rows; {guarded}; Ctrl-C ends it"),
        )
    return f"serve: {at.url} was served, and is no longer"


def build(arguments: dict[str, Any]) -> Any:
    """Return the application of Ray Serve for a config's values: what `run.written`'s file names.

    Serve, not `run.host`, says there where it listens, so a token is wanted in any case.
    """
    config = ServeConfig.of(arguments, "args")
    if config.token is None or not (config.token.file or config.token.env):
        msg = "args: a service that `serve deploy` starts may be reached from anywhere: set token.file or token.env"
        raise ConfigError(msg)
    return service.application(_plan(config))


def _plan(config: ServeConfig, bank: ReferenceIndex | RemoteIndex | None = None) -> service.ServicePlan:
    limits, token = config.limits, None
    if config.token is not None and (config.token.file or config.token.env):
        token = BearerToken(config.token.file and str(StoragePath.of(config.token.file)), config.token.env)
        token.digest()  # told now rather than by a replica
    return service.ServicePlan(
        opened=functools.partial(open_handler, config, bank),
        door=AccessPolicy(limits.body_bytes, limits.requests, limits.deadline_s, token),
        limits=RequestLimits(limits.tiles, limits.k, limits.genes, limits.values),
        batch_tiles=config.batch.tiles,
        batch_wait_s=config.batch.wait_ms / 1000,
        replicas=config.run.replicas,
        cpus=config.run.cpus,
        gpus=config.run.gpus,
    )


def _at(config: ServeConfig) -> service.ListenAddress:
    return service.ListenAddress(config.run.host, config.run.port, every_node=config.run.address is not None)


def _write(config: ServeConfig, plan: service.ServicePlan, at: service.ListenAddress) -> str:
    arguments = config.model_dump(mode="json", exclude_defaults=True, exclude={"run": {"written"}})
    file = StoragePath.of(str(config.run.written))
    file.write_bytes(service.serve_config(plan, at, f"{__name__}:{build.__name__}", arguments).encode())
    return f"serve: {file} holds the service in Ray Serve's schema: serve deploy {file}"
