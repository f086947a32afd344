"""Configuration of `raystp embed`: tiles, encoders, and resources."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field, model_validator

from raystp.config import Location, StepConfig
from raystp.encoders.features.options import LAYER_PATTERN, OWN_ROW, FeatureOptions, Views
from raystp.steps.input_config import EncoderConfig
from raystp.steps.run_config import SlideRun

Count = Annotated[int, Field(ge=1)]
Pool = Count | tuple[Count, Count]
"""A number of actors, or [min, max] of a pool that grows while work is waiting."""


class EmbedRun(SlideRun):
    """The `run` section: resources and speed; nothing here changes a row."""

    encoders: Pool | None = None
    """Encoder actors: a number, or [min, max]. The default is one per GPU, or without GPUs one per two logical CPUs."""

    readers: Pool | Literal[0] = 0
    """Separate CPU readers, a number or [min, max]; their pixels cross the object store once. 0 reads in threads inside
    the encoder's actor."""

    threads: int = Field(default=1, ge=1)
    """Reader threads per encoder that read ahead."""

    batch_tiles: int = Field(default=64, ge=1)
    """Tiles that are read and encoded together."""

    cpus_per_encoder: float = Field(default=1.0, gt=0)
    """Logical CPUs of each encoder's actor."""

    gpus_per_encoder: float | None = Field(default=None, ge=0)
    """GPUs of each encoder's actor, also a fraction. The default divides the cluster's GPUs among the encoders. Set it
    where the GPU nodes start later."""

    pass_tiles: Count | Literal["fit"] | None = None
    """Tiles in one forward pass: a number, or `fit` for as many as the device's memory holds (found by doubling). The
    default is a small number that suits a CPU."""

    channels_last: bool = False
    """Store the weights of convolutions in channels-last order: faster on a GPU, for convolutional networks."""

    compiler: str | None = None
    """Backend of torch.compile, say `inductor`: takes a minute once, then passes are faster on a GPU."""

    deadline_s: float = Field(default=600.0, gt=0)
    """Time limit for reading a batch of tiles, in seconds. A worker that exceeds it is killed; after three such crashes
    the slide is skipped."""

    @model_validator(mode="after")
    def _check_order(self) -> "EmbedRun":
        for field in ("encoders", "readers"):
            pool = getattr(self, field)
            if isinstance(pool, tuple) and pool[0] > pool[1]:
                msg = f"{field}: expected [min, max] with min <= max"
                raise ValueError(msg)
        return self


class EmbedConfig(StepConfig[EmbedRun]):
    """Configuration of `raystp embed`."""

    command: ClassVar[str | None] = "embed"
    where: ClassVar[frozenset[str]] = frozenset({"tiles"})

    tiles: Annotated[str, Location("tile")]
    """The tiles, `tile/<name>`."""

    encoder: EncoderConfig = Field(default_factory=EncoderConfig)

    also: dict[Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]{1,64}$")], EncoderConfig] = Field(default_factory=dict)
    """More encoders, name -> encoder; the pixels are read once for all. Each writes an artifact of that name, the same
    as in a run of its own."""

    layers: tuple[Annotated[str, Field(pattern=LAYER_PATTERN)], ...] = Field(default=OWN_ROW.layers, min_length=1)
    """Layers whose rows are concatenated, in this order: `last` is the encoder's own row. `middle` and `stage:<n>` are
    mean and standard deviation of each channel of a stage. All are taken in one forward pass."""

    views: Views = OWN_ROW.views
    """Views of each tile whose rows are averaged: `rotations` (4), `flips` (these and their mirror images) or
    `none`. Each view is a forward pass."""

    tokens: Annotated[int, Field(ge=1, le=64)] | None = None
    """Keep spatial tokens beside the vectors: the map of the last stage, or the patch tokens, averaged to a grid of
    this many rows and columns (7: 49 tokens, 14: 196). As float16: 98 KiB a tile for 7 x 7 of 1,024 channels."""

    precision: Literal["float32", "float16", "bfloat16"] = "float32"
    """Precision of the encoder's arithmetic and of the stored vectors; bfloat16 vectors are stored as float16."""

    unit_tiles: int = Field(default=2048, ge=1)
    """Tiles in a work unit, which is committed, or computed again, as a whole. The output's files depend on it. An
    encoder's process holds a unit's tokens in memory twice: 400 MB for 7 x 7 of 1,024 channels."""

    run: EmbedRun = Field(default_factory=EmbedRun)

    @model_validator(mode="after")
    def _check_layers(self) -> "EmbedConfig":
        if len(set(self.layers)) < len(self.layers):
            msg = f"layers: {', '.join(self.layers)} has a layer twice"
            raise ValueError(msg)
        return self

    @model_validator(mode="after")
    def _check_names(self) -> "EmbedConfig":
        if self.name in self.also:
            msg = f"also: {self.name!r} is already the name of the main encoder; choose another"
            raise ValueError(msg)
        return self

    @property
    def features(self) -> FeatureOptions:
        """Layers and views as the plain value of the package `encoders`."""
        return FeatureOptions(self.layers, self.views)

    def fingerprint_values(self) -> dict[str, object]:
        """Return what is computed; the digest of the weights is an input, so their path is not included."""
        values = super().fingerprint_values()
        values.pop("also")
        for name in ("layers", "views"):
            if name not in self.features.record:
                values.pop(name)  # as before the field existed
        if self.tokens is None:
            values.pop("tokens")
        return {**values, "encoder": self.encoder.fingerprint_values()}

    def manifest_values(self) -> dict[str, object]:
        """Return the config of one encoder's artifact."""
        values = super().manifest_values()
        values.pop("also")
        return values

    def each(self) -> "list[EmbedConfig]":
        """Return a config for each encoder, as for a run of its own."""
        main = self.model_copy(update={"also": {}})
        others = self.also.items()
        return [main, *(main.model_copy(update={"name": name, "encoder": encoder}) for name, encoder in others)]
