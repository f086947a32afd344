"""The config of `embed`: which tiles, which encoders, and how wide."""

from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, model_validator

from raystp.config import Location, StepConfig
from raystp.steps.encoder_source import EncoderConfig
from raystp.steps.run_config import SlideRun

Count = Annotated[int, Field(ge=1)]
Pool = Count | tuple[Count, Count]
"""A number of actors, or the least and the most of a pool that grows while work waits."""


class EmbedRun(SlideRun):
    """How wide to embed; nothing here changes a row."""

    encoders: Pool | None = None
    """Encoder actors: a number, or [least, most]. By default one per GPU, or one per two logical CPUs without any."""

    readers: Pool | Literal[0] = 0
    """CPU readers apart from the encoders, one hop away; 0 reads in threads inside the encoder's actor."""

    threads: int = Field(default=1, ge=1)
    """Reader threads ahead of each encoder."""

    batch_tiles: int = Field(default=64, ge=1)
    """Tiles that are read and encoded together."""

    cpus_per_encoder: float = Field(default=1.0, gt=0)
    """Logical CPUs that each encoder's actor holds."""

    gpus_per_encoder: float | None = Field(default=None, ge=0)
    """GPUs that each encoder's actor holds, a part of one too; by default the cluster's, shared among the encoders.
    Give it where the GPU nodes come up later."""

    pass_tiles: Count | Literal["fit"] | None = None
    """Tiles in one pass through the network: a number, `fit` for what the device holds (found by doubling), or by
    default a small number that suits a CPU."""

    channels_last: bool = False
    """Lay convolutions out as the pixels lie: faster on a GPU, for convolutional networks."""

    compiler: str | None = None
    """torch.compile's backend, say `inductor`: a minute once, then faster passes on a GPU."""

    deadline_s: float = Field(default=600.0, gt=0)
    """Seconds within which a batch of tiles must be read. A process in which a decoder hangs longer is ended; after
    three the slide is left out."""

    @model_validator(mode="after")
    def _in_order(self) -> "EmbedRun":
        for field in ("encoders", "readers"):
            pool = getattr(self, field)
            if isinstance(pool, tuple) and pool[0] > pool[1]:
                msg = f"{field}: [least, most] are wanted, in that order"
                raise ValueError(msg)
        return self


class EmbedConfig(StepConfig[EmbedRun]):
    """Which tiles to embed, with which encoder."""

    where: ClassVar[frozenset[str]] = frozenset({"tiles"})

    tiles: Annotated[str, Location("tile")]
    """The tiles, `tile/<name>`."""

    encoder: EncoderConfig = Field(default_factory=EncoderConfig)

    also: dict[Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]{1,64}$")], EncoderConfig] = Field(default_factory=dict)
    """More encoders over the same pixels, which are read once: name -> encoder. Each leaves an artifact of that name,
    the same as if it were run alone."""

    precision: Literal["float32", "float16", "bfloat16"] = "float32"
    """Precision of the encoder's arithmetic, and of the stored vectors: bfloat16's are stored as float16."""

    unit_tiles: int = Field(default=2048, ge=1)
    """Tiles in a work unit: what is committed, and computed again, as a whole. It names the output's files."""

    run: EmbedRun = Field(default_factory=EmbedRun)

    @model_validator(mode="after")
    def _named_apart(self) -> "EmbedConfig":
        if self.name in self.also:
            msg = f"also: {self.name!r} is the first encoder's own name; another would do"
            raise ValueError(msg)
        return self

    def fingerprint_values(self) -> dict[str, Any]:
        """Return what is computed; the weights' digest stands among the inputs, not their path here."""
        values = super().fingerprint_values()
        values.pop("also")
        return {**values, "encoder": self.encoder.fingerprint_values()}

    def manifest_values(self) -> dict[str, Any]:
        """Return the config of one encoder's artifact."""
        values = super().manifest_values()
        values.pop("also")
        return values

    def each(self) -> "list[EmbedConfig]":
        """Return a config for each encoder, as if it were run alone."""
        alone = self.model_copy(update={"also": {}})
        others = self.also.items()
        return [alone, *(alone.model_copy(update={"name": name, "encoder": encoder}) for name, encoder in others)]
