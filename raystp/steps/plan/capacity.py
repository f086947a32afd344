"""What `embed` of a cohort, and the maps of it, ask of a cluster of so many nodes.

The constants of the driver, of Ray's head and of the requests are measured by `make bench-capacity`, which compares
this model with runs; docs/capacity.md has the figures. What belongs to a cluster (GPUs, rates, latency) is assumed, in
`ClusterConfig`.
"""

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from raystp.cluster.streams.units import blocks_of
from raystp.errors import ConfigError
from raystp.steps.plan.config import ClusterConfig, Prices

logger = logging.getLogger("raystp")

DRIVER_MB, DRIVER_MB_PER_UNIT, DRIVER_MB_PER_BLOCK = 258.0, 0.0006, 0.0055
"""Private memory of the driver: with all imports, and what a work unit and a block of them add."""
DRIVER_S_PER_UNIT, DRIVER_S_PER_BLOCK, DRIVER_SHARE_PER_BLOCK = 0.0003, 0.0035, 6.3e-6
"""CPU-seconds of the driver for a unit and a block that has run. The share of a core for each block of the plan: every
five seconds Ray Data pickles its statistics of all blocks."""
GCS_MB, GCS_MB_PER_ENCODER, GCS_MB_PER_BLOCK, GCS_TASKS = 30.0, 0.1, 0.0045, 100_000
"""Memory of Ray's GCS without a run, for each actor, and for each of the last tasks, whose events it keeps."""
START_S = 10.0
"""From the command to the first unit, besides the encoder's own start."""

PUTS_OF_UNIT, HEADS_OF_UNIT, DELETES_OF_UNIT = 3, 1, 2
"""Marker, vectors, commit record; look-up of the record; marker and failed tiles of an earlier attempt."""
REQUESTS_OF_TABLE = 3
"""HEAD and two ranges, for a slide's table of tiles in the process that has its units."""
PUTS_OF_RUN, GETS_OF_RUN, DELETES_OF_RUN = 8, 10, 3
"""To open the tiles and the artifact, and to finish it. Each encoder's start has a marker besides."""
PAGE = 1_000
"""Names of one request of a list."""

NEIGHBOUR_BYTES, TILE_BYTES = 6, 48
"""A neighbour's row and weight; other columns of a tile."""
PUTS_PER_S = 3_500
"""Writes a second that S3 promises for one prefix."""
LEAST_BLOCKS = 4
"""With fewer blocks for each encoder, the last ones leave much of the cluster idle."""


@dataclass(frozen=True)
class CohortSize:
    """Totals of a cohort's plan."""

    slides: int
    tiles: float
    units: int
    read_bytes: float
    """Of the slides, for all tiles."""
    gets: float
    """Ranges of the slides."""
    vector_bytes: float
    """Stored vectors of all encoders."""
    encoders: int = 1
    """Encoders of one pass."""
    first_batch_s: float = 0.0
    """Reading of a unit's first batch, for which its encoder waits; little with the default of `run.batch_tiles`."""


@dataclass(frozen=True)
class Load:
    """A run of `embed` on a cluster."""

    nodes: int
    encoders: int
    """Actors."""
    blocks: int
    running_s: float
    """From the first unit's start to the last one's end."""
    driver_mb: float
    driver_share: float
    """CPU of the driver, of one core."""
    gcs_mb: float
    puts: float
    """With lists, as S3 counts."""
    gets: float
    """With HEAD."""
    deletes: float

    @property
    def seconds(self) -> float:
        """The whole run."""
        return START_S + self.running_s

    @property
    def tasks_per_s(self) -> float:
        """Blocks a second."""
        return self.blocks / self.seconds


def load_of(cohort: CohortSize, nodes: int, cluster: ClusterConfig, tile_s: float) -> Load:
    """Return the load of a run; `tile_s` is what one encoder's actor takes for a tile, of all encoders of a pass."""
    encoders = min(nodes * cluster.encoders_per_node, cohort.units)
    blocks = blocks_of(cohort.units, encoders)
    serial = HEADS_OF_UNIT * cohort.encoders + PUTS_OF_UNIT - 2 + DELETES_OF_UNIT + 2 * cohort.encoders
    unit_s = cohort.tiles / cohort.units * tile_s + serial * cluster.request_ms / 1000 + cohort.first_batch_s
    running_s = math.ceil(blocks / encoders) * cohort.units / blocks * unit_s
    seconds = START_S + running_s
    puts = cohort.units * (PUTS_OF_UNIT - 2 + 2 * cohort.encoders)
    return Load(
        nodes=nodes,
        encoders=encoders,
        blocks=blocks,
        running_s=running_s,
        driver_mb=DRIVER_MB + DRIVER_MB_PER_UNIT * cohort.units + DRIVER_MB_PER_BLOCK * blocks,
        driver_share=DRIVER_SHARE_PER_BLOCK * blocks
        + (DRIVER_S_PER_UNIT * cohort.units + DRIVER_S_PER_BLOCK * blocks) / seconds,
        gcs_mb=GCS_MB + GCS_MB_PER_ENCODER * encoders + GCS_MB_PER_BLOCK * min(blocks, GCS_TASKS),
        puts=float(puts + PUTS_OF_RUN + encoders + 2 * math.ceil(cohort.units / PAGE)),
        gets=GETS_OF_RUN
        + cohort.gets
        + cohort.units * HEADS_OF_UNIT * cohort.encoders
        + REQUESTS_OF_TABLE * _tables(cohort, encoders, blocks),
        deletes=float(DELETES_OF_RUN + encoders + cohort.units * DELETES_OF_UNIT),
    )


def _tables(cohort: CohortSize, encoders: int, blocks: int) -> float:
    """Return how often a slide's table of tiles is read: once by each process that gets some of its blocks.

    The blocks of a slide go to processes as if by chance: n of them reach E (1 - (1 - 1/E)^n) of E processes.
    """
    blocks_of_slide = 1 + (cohort.units / cohort.slides - 1) * blocks / cohort.units
    return float(cohort.slides * encoders * (1 - (1 - 1 / encoders) ** blocks_of_slide))


def dollars_of(cohort: CohortSize, load: Load, prices: Prices, cluster: ClusterConfig) -> float:
    """Return the price of the run's requests, nodes and bytes of slides, without storage."""
    hours = load.seconds / 3600 * load.nodes
    nodes = hours * (cluster.gpus * prices.gpu_hour + cluster.cpus * prices.cpu_hour)
    read = cohort.read_bytes / 1e9 * prices.read_per_gb
    return load.puts / 1000 * prices.put_per_1000 + load.gets / 1000 * prices.get_per_1000 + nodes + read


def outputs_of(cohort: CohortSize, cluster: ClusterConfig) -> dict[str, float]:
    """Return the bytes of each form of the cohort's results, before compression of dense values."""
    return {
        "vectors": cohort.vector_bytes,
        "neighbours": cohort.tiles * (cluster.k * NEIGHBOUR_BYTES + TILE_BYTES),
        "dense float16": cohort.tiles * cluster.genes * 2.0,
        "dense float32": cohort.tiles * cluster.genes * 4.0,
    }


def limits_of(cohort: CohortSize, load: Load, cluster: ClusterConfig) -> list[str]:
    """Return what such a run strains, as sentences with what to do."""
    found = []
    per_node = cohort.read_bytes / load.seconds / load.nodes
    if per_node > cluster.network_gbit * 1e9 / 8:
        found.append(
            f"slides are read at {per_node / 1e9:.2g} GB/s a node, and its network has {cluster.network_gbit:g} Gbit/s"
        )
    if load.puts / load.seconds > PUTS_PER_S:
        found.append(
            f"{load.puts / load.seconds:,.0f} writes a second, and S3 promises {PUTS_PER_S:,} for one prefix: larger "
            "`unit_tiles`"
        )
    if load.blocks < LEAST_BLOCKS * load.encoders:
        found.append(
            f"{load.blocks / load.encoders:.1f} blocks of units for each encoder: the last ones leave many idle; "
            "smaller `unit_tiles`, or fewer nodes"
        )
    busy = 0.5
    if load.driver_share > busy:
        found.append(f"the driver takes {load.driver_share:.0%} of a core: larger `unit_tiles`")
    return found


def planned_capacity(
    slides: int, steps: Sequence[Mapping[str, Any]], cluster: ClusterConfig, prices: Prices
) -> dict[str, Any] | None:
    """Return the capacity section of a plan, for the first pass of `embed` in it; None, with a warning, without tiles.

    Raises ConfigError for nodes without GPUs where it is not known how fast a CPU encodes.
    """
    passes = [one for one in steps if one["step"].startswith("embed/")]
    if not passes or passes[0]["tiles"].value <= 0:
        logger.warning(f"cluster.nodes: {'no tile is planned' if passes else 'no `embed` is planned'}: no such section")
        return None
    first = [one for number, one in enumerate(passes) if not number or not one["read"].value]
    cohort = CohortSize(
        slides,
        first[0]["tiles"].value,
        math.ceil(first[0]["units"].value),
        first[0]["read"].value,
        first[0]["reads"].value,
        sum(one["written"].value for one in first),
        len(first),
    )
    return capacity(cohort, cluster, prices, sum(1 / _rate(one, cluster) for one in first))


def _rate(step: Mapping[str, Any], cluster: ClusterConfig) -> float:
    """Return the tiles that one actor encodes a second: as planned, if it is the rate of the cluster's devices."""
    planned = step["tiles_per_s"]
    if planned is not None and step["is_gpu"] == bool(cluster.gpus):
        return float(planned)
    if cluster.gpus:
        return cluster.tiles_per_gpu_s
    name, known = step["encoder"], "only the rate of a GPU is known" if step["is_gpu"] else step["rate"]
    msg = f"cluster.gpus=0: how many tiles a second a CPU encodes with '{name}' is not known ({known}); "
    raise ConfigError(f"{msg}pass gpu=false and rate.{name}=TILES_PER_S of one CPU")


def capacity(cohort: CohortSize, cluster: ClusterConfig, prices: Prices, tile_s: float) -> dict[str, Any]:
    """Return the loads for each number of nodes, and the bytes of the results, as plain JSON values."""
    rows = []
    for nodes in cluster.nodes:
        load = load_of(cohort, nodes, cluster, tile_s)
        rows.append(
            {
                "nodes": nodes,
                "encoders": load.encoders,
                "hours": load.seconds / 3600,
                "driver_mb": load.driver_mb,
                "driver_share": load.driver_share,
                "gcs_mb": load.gcs_mb,
                "tasks_per_s": load.tasks_per_s,
                "puts": load.puts,
                "gets": load.gets,
                "puts_per_s": load.puts / load.seconds,
                "read_bytes_per_s": cohort.read_bytes / load.seconds,
                "index_bytes": nodes * cluster.index_rows * 4.0 * cluster.index_dim,
                "dollars": dollars_of(cohort, load, prices, cluster),
                "limits": limits_of(cohort, load, cluster),
            }
        )
    return {"nodes": rows, "outputs": outputs_of(cohort, cluster), "assumed": cluster.assumptions()}
