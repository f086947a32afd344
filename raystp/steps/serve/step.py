"""serve: a model [and its index] -> an HTTP service on Ray Serve, in the foreground until SIGTERM or SIGINT.

It writes no artifact. Model, index, encoder and token are checked before Serve starts.
"""

import functools
import logging
from collections.abc import Iterator

from raystp.cluster.serving import deployment as service
from raystp.cluster.serving.guard import AccessPolicy, BearerToken
from raystp.cluster.serving.messages import RequestLimits
from raystp.cluster.session import session
from raystp.errors import ConfigError
from raystp.index.remote import RemoteIndex
from raystp.steps.impute.step import open_remote_index
from raystp.steps.serve.config import ServeConfig
from raystp.steps.serve.handler import check_inputs, open_handler
from raystp.storage import StoragePath

logger = logging.getLogger("raystp")

STEP = "serve"
CONFIG = ServeConfig


def run(config: ServeConfig) -> str:
    """Serve until stopped, or write the service's config; return a summary."""
    if config.run.config_file is not None:
        config.check_absolute()
    plan, address = _plan(config), _address(config)
    _, index = check_inputs(config)
    if config.run.config_file is not None:
        return _write_config(config, plan, address, config.run.config_file)
    with session(config.run.address):
        actors, remote = config.run.shard_actors, None
        if actors and index is not None:
            remote = open_remote_index(index, actors, replicas=config.run.shard_replicas)
        access = "token required" if plan.policy.token else "no token required"
        rows = f"{index.manifest.rows['rows']} rows" if index is not None else "no index"
        ready = f"serve: ready at {address.url} ({rows}, {access}); stop with Ctrl-C"
        service.serve_until(_plan(config, remote), address, lambda: logger.info(ready))
    return f"serve: stopped ({address.url})"


def plan(config: ServeConfig) -> Iterator[str]:
    """Yield what would be served, after the checks of a start; a service writes no artifact."""
    _plan(config)
    model, index = check_inputs(config)
    yield f"reads model: {model.path}"
    if index is not None:
        yield f"reads index: {index.path}"
    yield f"writes {config.run.config_file or 'nothing'}"
    yield f"would listen at {_address(config).url}"


def build(arguments: dict[str, object]) -> service.Application:
    """Return the Ray Serve application for a config's values; the file of `run.config_file` names this function.

    There Serve sets the address, not `run.host`, so a token is always required.
    """
    config = ServeConfig.of(arguments, "args")
    if not config.has_token:
        msg = "args: a service started by `serve deploy` may listen on any address: set token.file or token.env"
        raise ConfigError(msg)
    return service.application(_plan(config))


def _plan(config: ServeConfig, remote: RemoteIndex | None = None) -> service.ServicePlan:
    limits, token = config.limits, None
    if config.token is not None and config.has_token:
        token = BearerToken(config.token.file and str(StoragePath.of(config.token.file)), config.token.env)
        token.digest()  # fail now rather than in a replica
    return service.ServicePlan(
        open_handler=functools.partial(open_handler, config, remote),
        policy=AccessPolicy(limits.body_bytes, limits.requests, limits.deadline_s, token),
        limits=RequestLimits(limits.tiles, limits.k, limits.genes, limits.values),
        batch_tiles=config.batch.tiles,
        batch_wait_s=config.batch.wait_ms / 1000,
        replicas=config.run.replicas,
        cpus=config.run.cpus,
        gpus=config.run.gpus,
    )


def _address(config: ServeConfig) -> service.ListenAddress:
    return service.ListenAddress(config.run.host, config.run.port, every_node=config.run.address is not None)


def _write_config(config: ServeConfig, plan: service.ServicePlan, address: service.ListenAddress, path: str) -> str:
    arguments = config.model_dump(mode="json", exclude_defaults=True, exclude={"run": {"config_file"}})
    file = StoragePath.of(path)
    if file.is_folder():
        msg = f"run.config_file: {file} is a folder; give the name of a YAML file"
        raise ConfigError(msg)
    file.parent.check_writable("folder of the config file", "run.config_file")
    file.write_bytes(service.serve_config(plan, address, f"{__name__}:{build.__name__}", arguments).encode())
    return f"serve: wrote {file}; start the service with: serve deploy {file}"
