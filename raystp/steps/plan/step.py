"""plan: a pipeline -> tiles, bytes, vectors, hours, requests and dollars of its steps, before it is run.

Tiles and bytes come from a sample of the slides, which is tiled as `tile` does it. Bytes of tiles follow from headers.
Of the steps after `embed`, rows and bytes are planned where config and sample state them, and no hours (`later`).
"""

import json
import logging
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from raystp.config import read_yaml, validated
from raystp.encoders.registry import tokens_of
from raystp.slides.table import SlideRow, read_slide_table
from raystp.steps.embed.config import EmbedConfig
from raystp.steps.encoder_source import dim_of, spec_of
from raystp.steps.pipeline.chain import planned_steps
from raystp.steps.pipeline.config import PipelineConfig
from raystp.steps.plan.capacity import planned_capacity
from raystp.steps.plan.config import PlanConfig, Prices
from raystp.steps.plan.later import LaterPlan
from raystp.steps.plan.rates import encoder_rate
from raystp.steps.plan.sample import SlideCost, choose, kind_of, measure
from raystp.steps.plan.text import plan_text
from raystp.steps.plan.totals import VECTOR_SHARE, Total, total
from raystp.steps.printed import Printed
from raystp.steps.run.step import pipeline_values, rows_of
from raystp.steps.spots.config import SpotsConfig
from raystp.steps.tile.config import TileConfig
from raystp.storage import StoragePath

logger = logging.getLogger("raystp")

STEP = "plan"
CONFIG = PlanConfig

HOUR_S = 3600.0
PRECISION_BYTES = {"float32": 4, "float16": 2, "bfloat16": 2}
TOKEN_BYTES = 2
"""Of a value of the spatial tokens, before compression."""
READS_OF_TILE = 8
"""Requests for a slide's header, its coarsest level and the id of its content, about."""
WRITES_OF_TILE, WRITES_OF_UNIT = 4, 3
"""Objects that `tile` writes for a slide, and `embed` for a work unit: a marker, a file and its commit record."""


def run(config: PlanConfig) -> Printed:
    """Print the plan; slides of the sample that cannot be read count as failures."""
    plan = make_plan(config)
    text = json.dumps(plan, indent=1) + "\n" if config.json else plan_text(plan)
    return Printed(text, len(plan["problems"]), plan["sampled"])


def make_plan(config: PlanConfig) -> dict[str, Any]:
    """Return the plan as plain JSON values. Raises ConfigError for an invalid pipeline, table or price."""
    prices = _prices(config.prices)
    rows = rows_of(config)
    values = pipeline_values(config, rows)
    steps = planned_steps(PipelineConfig.of(values, "raystp plan"))
    spots = next((one for one in steps if isinstance(one, SpotsConfig)), None)
    tiles = {one.name: one for one in steps if isinstance(one, TileConfig)}
    first = next(iter(tiles.values()))
    if (first.slides, first.root) != (config.slides, config.root):
        rows = read_slide_table(first.slides, first.root, config.run.store)
    chosen = choose(rows, config.sample, config.seed)
    sizes = Counter(kind_of(row) for row in rows)
    is_remote = not StoragePath.of(config.run.store).is_local
    logger.info(f"plan: {len(chosen)} of {len(rows)} slides are opened")
    costs = {name: measure(chosen, one, spots, threads=config.threads) for name, one in tiles.items()}
    planned = [_tile(sizes, one, costs[name], config.rate.get("tile")) for name, one in tiles.items()]
    for embed in (one for one in steps if isinstance(one, EmbedConfig) and one.encoder.trained is None):
        name = embed.tiles.rpartition("/")[2]
        tile = tiles.get(name) or first
        planned += [
            _embed(sizes, one, costs[tile.name], tile=tile, config=config, reads=number == 0)
            for number, one in enumerate(embed.each())
        ]
    for one in planned:
        one["writes"] = one["writes"] if is_remote else Total(0.0)
        one["dollars"] = _dollars(one, prices) if config.prices else "-"
    main = costs[first.name]
    later, not_planned = _later(steps, rows, main, planned)
    problems = {cost.row.slide: cost.problem for cost in main if cost.problem}
    on_cluster = (
        {"cluster": planned_capacity(len(rows), planned, config.cluster, prices)} if config.cluster.nodes else {}
    )
    return {
        "slides": len(rows),
        "sampled": len(chosen),
        "problems": problems,
        "classes": {kind: _class({kind: sizes[kind]}, main) for kind in sorted(sizes)},
        "steps": [_plain(step) for step in planned],
        "later": later,
        "not_planned": not_planned,
        **on_cluster,
    }


def _later(
    steps: Sequence[Any], rows: Sequence[SlideRow], costs: Sequence[SlideCost], planned: Sequence[dict[str, Any]]
) -> tuple[list[dict[str, Any]], list[str]]:
    """Return what is known of the steps after `embed`, and the names of steps of which nothing is."""
    vectors = {one["step"]: one["dim"] * one["value_bytes"] for one in planned if "dim" in one}
    plan, later, not_planned = LaterPlan(rows, costs, vectors), [], set()
    for one in steps:
        step = str(type(one).__module__).split(".")[2]
        if step in {"tile", "embed"}:
            continue
        found = plan.step_of(one)
        if found is None:
            not_planned.add(f"{step}/{one.name}")
        else:
            later.append(found.values())
    return later, sorted(not_planned)


def _plain(step: dict[str, Any]) -> dict[str, Any]:
    return {key: one.values if isinstance(one, Total) else one for key, one in step.items()}


def _class(sizes: Mapping[str, int], costs: Sequence[SlideCost]) -> dict[str, Any]:
    tiles, read = total(sizes, costs, lambda one: one.tiles), total(sizes, costs, lambda one: one.read_bytes)
    sampled = [one for one in costs if kind_of(one.row) in sizes]
    failed = sum(bool(one.problem) for one in sampled)
    return {
        "slides": sum(sizes.values()),
        "sampled": len(sampled),
        "failed": failed,
        "tiles": tiles.values,
        "read": read.values,
    }


def _tile(sizes: Mapping[str, int], config: TileConfig, costs: list[SlideCost], rate: float | None) -> dict[str, Any]:
    slides = sum(sizes.values())
    seconds = Total(slides / rate) if rate else total(sizes, costs, lambda one: one.tile_s)
    found = sum(not one.problem for one in costs) / max(len(costs), 1)
    is_remote = any(not one.row.path.is_local for one in costs)
    return {
        "step": f"tile/{config.name}",
        "slides": slides,
        "tiles": total(sizes, costs, lambda one: one.tiles),
        "read": total(sizes, costs, lambda one: one.opening_bytes + one.overview_bytes),
        "written": total(sizes, costs, lambda one: one.written_bytes),
        "cpu_hours": seconds.scaled(1 / HOUR_S),
        "gpu_hours": Total(0.0),
        "reads": Total(float(READS_OF_TILE * slides) if is_remote else 0.0),
        "writes": Total(float(WRITES_OF_TILE * slides * found)),
        "rate": "given" if rate else "measured",
    }


def _embed(
    sizes: Mapping[str, int],
    embed: EmbedConfig,
    costs: list[SlideCost],
    *,
    tile: TileConfig,
    config: PlanConfig,
    reads: bool,
) -> dict[str, Any]:
    """Plan one encoder; `reads` is whether the pixels count as its own, as they are read once for all encoders."""
    name, scales = embed.encoder.name, len(tile.scales)
    rate = encoder_rate(embed, costs, tile.tile_px, config.rate.get(name), gpu=config.gpu)
    tiles = total(sizes, costs, lambda one: one.tiles)
    units = total(sizes, costs, lambda one: math.ceil(one.tiles / embed.unit_tiles))
    without_file = embed.encoder.model_copy(update={"weights": None, "sha256": None})
    dim = scales * dim_of(without_file, embed.features)
    tokens = scales * tokens_of(spec_of(without_file), embed.tokens).values if embed.tokens else 0
    hours = None if rate.tiles_per_s is None else tiles.scaled(scales / rate.tiles_per_s / HOUR_S)
    return {
        "step": f"embed/{embed.name}",
        "encoder": name,
        "dim": dim,
        "value_bytes": PRECISION_BYTES[embed.precision],
        "tiles": tiles,
        "units": units,
        "tiles_per_s": rate.tiles_per_s,
        "is_gpu": rate.is_gpu,
        "read": total(sizes, costs, lambda one: reads * (one.opening_bytes + one.read_bytes)),
        "written": tiles.scaled(dim * PRECISION_BYTES[embed.precision] * VECTOR_SHARE + tokens * TOKEN_BYTES),
        "cpu_hours": Total(0.0) if rate.is_gpu else hours,
        "gpu_hours": hours if rate.is_gpu else Total(0.0),
        "reads": total(sizes, costs, lambda one: reads * one.requests),
        "writes": units.scaled(float(WRITES_OF_UNIT)),
        "rate": rate.source if rate.tiles_per_s is None else f"{rate.tiles_per_s:.3g} tiles/s, {rate.source}",
    }


def _dollars(step: dict[str, Any], prices: Prices) -> Total | None:
    """Return the price of a step, with one month of its results; None where its hours are unknown."""
    if step["cpu_hours"] is None or step["gpu_hours"] is None:
        return None
    parts = [
        step["reads"].scaled(prices.get_per_1000 / 1000),
        step["writes"].scaled(prices.put_per_1000 / 1000),
        step["read"].scaled(prices.read_per_gb / 1e9),
        step["written"].scaled(prices.stored_per_gb_month / 1e9),
        step["cpu_hours"].scaled(prices.cpu_hour),
        step["gpu_hours"].scaled(prices.gpu_hour),
    ]
    return Total(sum(one.value for one in parts), sum(one.half for one in parts))  # all grow with the tiles


def _prices(path: str | None) -> Prices:
    if path is None:
        return Prices()
    return validated(Prices, read_yaml(Path(path), Prices), f"prices: {path}", "table of prices")
