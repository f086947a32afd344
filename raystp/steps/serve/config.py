"""What `raystp serve` is told."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field, model_validator

from raystp.config import Config, Location, RunConfig, StepConfig
from raystp.steps.encoder_source import EncoderConfig

LOOPBACK = ("127.0.0.1", "::1", "localhost")


class TokenConfig(Config):
    """Where the bearer token is that clients must show; at most one of both."""

    file: Annotated[str | None, Location()] = None
    """A file that holds it."""

    env: str | None = Field(default=None, pattern="^[A-Za-z_][A-Za-z0-9_]*$")
    """The name of an environment variable that holds it."""

    @model_validator(mode="after")
    def _one(self) -> "TokenConfig":
        if self.file and self.env:
            msg = "a token has one place: a file, or an environment variable"
            raise ValueError(msg)
        return self


class LimitsConfig(Config):
    """How much one request may ask for."""

    body_bytes: int = Field(default=16 << 20, ge=1024)
    """A longer body is refused while it is read; times `requests`, this bounds what bodies take in memory."""

    tiles: int = Field(default=1024, ge=1)
    """Tiles in one request."""

    k: int = Field(default=500, ge=1)
    """Neighbours that may be asked for."""

    genes: int = Field(default=25_000, ge=1)
    """Genes that may be asked for."""

    values: int = Field(default=4_000_000, ge=1)
    """Tiles times genes of one answer."""

    requests: int = Field(default=64, ge=1)
    """Requests inside at a time; more are told to come again."""

    deadline_s: float = Field(default=30.0, gt=0)
    """Seconds from a request's first line to its answer."""


class BatchConfig(Config):
    """How requests are joined."""

    tiles: int = Field(default=2048, ge=1)
    """Tiles answered together, at most."""

    wait_ms: float = Field(default=5.0, ge=0)
    """How long a request waits for others."""


class ServeRun(RunConfig):
    """Where the service listens and how wide it is; nothing here changes an answer."""

    host: str = "127.0.0.1"
    """Address to listen on; any but loopback wants a token."""

    port: int = Field(default=8000, ge=1, le=65535)
    """Port to listen on."""

    replicas: int = Field(default=1, ge=1)
    """Processes that answer; each opens the model and maps the bank."""

    cpus: float = Field(default=1.0, gt=0)
    """CPUs of a replica."""

    gpus: float = Field(default=0.0, ge=0)
    """GPUs of a replica, for an encoder."""

    actors: int = Field(default=0, ge=0)
    """Hold the bank's shards in so many actors, which all replicas ask; 0: in every replica."""

    copies: int = Field(default=1, ge=1)
    """Actors that hold the same shards, where `actors` is given."""

    written: Annotated[str | None, Location()] = None
    """Serve nothing: write the service to this file in Ray Serve's own schema, for `serve deploy` or a RayService."""


class ServeConfig(StepConfig[ServeRun]):
    """Which model answers, about what, and within which bounds."""

    where: ClassVar[frozenset[str]] = frozenset({"model", "index", "slides"})

    model: Annotated[str, Location("train")]
    """A contrastive model, `train/<name>`."""

    index: Annotated[str, Location("index")]
    """Its bank, `index/<name>`."""

    encoder: EncoderConfig | None = None
    """Where clients send pixels or name slides: the encoder whose features the model reads."""

    slides: Annotated[list[str], Location()] = Field(default_factory=list)
    """Folders or URIs under which clients may name slides; none, and no slide is read."""

    side: float | None = Field(default=None, gt=0)
    """A tile's side in um on slides, as the model's tiles had it."""

    search: Literal["index", "exact"] = "index"
    """Search as the index was built, or every row."""

    far: float | None = Field(default=None, gt=0)
    """A tile whose nearest row is farther than this is flagged; by default what the index says of its own rows."""

    token: TokenConfig | None = None
    """The bearer token; on loopback none is wanted unless one is given."""

    limits: LimitsConfig = LimitsConfig()
    """Bounds of a request."""

    batch: BatchConfig = BatchConfig()
    """Joining of requests."""

    run: ServeRun = Field(default_factory=ServeRun)

    @model_validator(mode="after")
    def _whole(self) -> "ServeConfig":
        if self.run.host not in LOOPBACK and not self._has_token():
            msg = f"run.host {self.run.host} is not loopback, so a token is wanted: set token.file or token.env"
            raise ValueError(msg)
        if self.slides and (self.encoder is None or self.side is None):
            msg = "slides are read with an `encoder` and tiles of a `side` in um: give both"
            raise ValueError(msg)
        if self.batch.tiles < self.limits.tiles:
            msg = f"batch.tiles {self.batch.tiles} would not hold a request of limits.tiles {self.limits.tiles}"
            raise ValueError(msg)
        return self

    def _has_token(self) -> bool:
        return self.token is not None and bool(self.token.file or self.token.env)
