"""Configuration of `raystp serve`."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field, model_validator

from raystp.config import Config, Location, RunConfig, StepConfig
from raystp.steps.input_config import EncoderConfig

LOOPBACK = ("127.0.0.1", "::1", "localhost")


class TokenConfig(Config):
    """Where the bearer token of clients is; set at most one of the two."""

    file: Annotated[str | None, Location()] = None
    """A file with the token."""

    env: str | None = Field(default=None, pattern="^[A-Za-z_][A-Za-z0-9_]*$")
    """The name of an environment variable with the token."""

    @model_validator(mode="after")
    def _check_one(self) -> "TokenConfig":
        if self.file and self.env:
            msg = "token.file and token.env are both set: remove one"
            raise ValueError(msg)
        return self


class LimitsConfig(Config):
    """Upper bounds of one request."""

    body_bytes: int = Field(default=16 << 20, ge=1024)
    """Bytes of a body; a longer one is refused while it is read. Times `requests`, this bounds the memory of bodies."""

    tiles: int = Field(default=1024, ge=1)
    """Tiles in one request."""

    k: int = Field(default=500, ge=1)
    """Neighbours in one request."""

    all_rows: int = Field(default=200_000, ge=0)
    """Rows of the largest index of which a request may ask for all (`k: all`)."""

    genes: int = Field(default=25_000, ge=1)
    """Genes in one request."""

    values: int = Field(default=4_000_000, ge=1)
    """Tiles times genes of one response."""

    requests: int = Field(default=64, ge=1)
    """Concurrent requests; more are refused with 503 and `retry-after`."""

    deadline_s: float = Field(default=30.0, gt=0)
    """Seconds from a request's headers to its response; a body that is incomplete by then is refused with 408."""


class BatchConfig(Config):
    """How requests are batched."""

    tiles: int = Field(default=2048, ge=1)
    """Maximum tiles of a batch."""

    wait_ms: float = Field(default=5.0, ge=0)
    """How long a request waits for others."""


class ServeRun(RunConfig):
    """Where the service listens, and its resources; nothing here changes a prediction."""

    RENAMED: ClassVar[dict[str, str]] = {
        "actors": "shard_actors",
        "copies": "shard_replicas",
        "written": "config_file",
    }

    host: str = "127.0.0.1"
    """Address to listen on; any address but loopback requires a token."""

    port: int = Field(default=8000, ge=1, le=65535)
    """Port to listen on."""

    replicas: int = Field(default=1, ge=1)
    """Processes that predict; each opens the model and memory-maps the reference index."""

    cpus: float = Field(default=1.0, gt=0)
    """CPUs of a replica."""

    gpus: float = Field(default=0.0, ge=0)
    """GPUs of a replica, for an encoder."""

    shard_actors: int = Field(default=0, ge=0)
    """Actors that hold the index's shards for all replicas; with 0 every replica maps the whole index."""

    shard_replicas: int = Field(default=1, ge=1)
    """With `shard_actors`: number of actors that hold the same shards."""

    config_file: Annotated[str | None, Location()] = None
    """Do not serve; write the service in Ray Serve's schema to this file, for `serve deploy` or a RayService."""


class ServeConfig(StepConfig[ServeRun]):
    """Which model to serve, and with which limits."""

    command: ClassVar[str | None] = "serve"

    RENAMED: ClassVar[dict[str, str]] = {"side": "tile_um", "far": "far_distance"}

    where: ClassVar[frozenset[str]] = frozenset({"model", "index", "slides"})

    model: Annotated[str, Location("train")]
    """`train/<name>`."""

    index: Annotated[str | None, Location("index")] = None
    """The reference index of a contrastive model, `index/<name>`; other models have none."""

    encoder: EncoderConfig | None = None
    """The encoder whose features the model reads; needed where clients send pixels or name slides."""

    slides: Annotated[list[str], Location()] = Field(default_factory=list)
    """Folders or URIs with the slides that clients may name; by default none."""

    tile_um: float | None = Field(default=None, gt=0)
    """Tile side in um on slides; by default that of the model's training tiles, and no other is accepted."""

    search: Literal["index", "exact"] = "index"
    """Search as the index was built (`index`), or over every row (`exact`)."""

    calibrate: bool = True
    """Apply the model's calibration, where it has one, to requests with the model's own retrieval."""

    far_distance: float | None = Field(default=None, gt=0)
    """A tile whose nearest row is farther is flagged as `far`; by default a quantile that the index records."""

    token: TokenConfig | None = None
    """The bearer token; required unless `run.host` is loopback."""

    limits: LimitsConfig = LimitsConfig()
    """Limits of a request."""

    batch: BatchConfig = BatchConfig()
    """Batching of requests."""

    run: ServeRun = Field(default_factory=ServeRun)

    @property
    def has_token(self) -> bool:
        """Whether clients must send a token."""
        return self.token is not None and bool(self.token.file or self.token.env)

    @model_validator(mode="after")
    def _check(self) -> "ServeConfig":
        if self.run.host not in LOOPBACK and not self.has_token:
            msg = f"run.host {self.run.host} is not loopback, which requires a token: set token.file or token.env"
            raise ValueError(msg)
        if self.slides and self.encoder is None:
            msg = "`slides` needs `encoder`, which turns their tiles into features: set it"
            raise ValueError(msg)
        if self.run.shard_replicas > 1 and not self.run.shard_actors:
            msg = (
                f"run.shard_replicas {self.run.shard_replicas} needs run.shard_actors: set it, or remove shard_replicas"
            )
            raise ValueError(msg)
        if self.batch.tiles < self.limits.tiles:
            msg = f"batch.tiles {self.batch.tiles} is smaller than limits.tiles {self.limits.tiles}: raise batch.tiles"
            raise ValueError(msg)
        return self
