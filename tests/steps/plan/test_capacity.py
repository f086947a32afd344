"""The model of a cluster: hours fall with the nodes, other terms stay, and requests are those of a unit."""

import numpy as np
import pytest

from raystp import tables
from raystp.cluster.streams.units import MAX_BLOCKS, WorkUnit, blocks_of
from raystp.steps.embed.outputs import EncoderOutput
from raystp.steps.embed.work import EmbedWork
from raystp.steps.encoder_source import source_of
from raystp.steps.input_config import EncoderConfig
from raystp.steps.plan.capacity import (
    DELETES_OF_UNIT,
    HEADS_OF_UNIT,
    PUTS_OF_UNIT,
    REQUESTS_OF_TABLE,
    START_S,
    CohortSize,
    dollars_of,
    limits_of,
    load_of,
    outputs_of,
)
from raystp.steps.plan.config import ClusterConfig, Prices
from raystp.units import TilePixels
from tests.faults import s3

LARGEST = CohortSize(28_664, 295.3e6, 158_707, 3e12, 2e7, 1.5e12)
FREE = ClusterConfig(request_ms=0)


def test_the_results_of_the_largest_cohort_have_the_bytes_of_their_values() -> None:
    found = outputs_of(LARGEST, ClusterConfig(genes=19_000, k=50))
    assert found["dense float32"] == 295.3e6 * 19_000 * 4 == 2 * found["dense float16"]
    assert found["neighbours"] == 295.3e6 * (50 * 6 + 48)


def test_twice_the_nodes_take_half_the_hours_and_the_same_requests() -> None:
    one, two = (load_of(LARGEST, nodes, FREE, 1 / 125) for nodes in (5, 10))
    assert two.running_s == pytest.approx(one.running_s / 2)
    assert two.driver_mb == one.driver_mb
    markers = two.encoders - one.encoders  # of their starts
    assert (two.puts, two.deletes) == (one.puts + markers, one.deletes + markers)
    assert one.encoders == 20
    assert one.running_s == pytest.approx(295.3e6 / 125 / 20, rel=0.01)
    assert one.seconds == one.running_s + START_S


def test_the_dollars_of_a_run_have_each_price_that_is_given() -> None:
    cluster = ClusterConfig(gpus=2, cpus=10)
    load = load_of(LARGEST, 3, cluster, 1 / 125)
    amounts = {
        "get_per_1000": load.gets / 1000,
        "put_per_1000": load.puts / 1000,
        "read_per_gb": LARGEST.read_bytes / 1e9,
        "gpu_hour": 3 * 2 * load.seconds / 3600,
        "cpu_hour": 3 * 10 * load.seconds / 3600,
    }
    assert {*amounts, "stored_per_gb_month"} == {*Prices.model_fields}
    for name, amount in amounts.items():
        assert dollars_of(LARGEST, load, Prices(**{name: 2.0}), cluster) == pytest.approx(2 * amount)


def test_a_cluster_of_many_encoders_gets_more_blocks_and_says_where_they_are_too_few() -> None:
    assert blocks_of(100, 4) == 100
    assert blocks_of(10**6, 4) == MAX_BLOCKS
    assert blocks_of(10**6, 4000) == 32_000
    assert limits_of(LARGEST, load_of(LARGEST, 64, FREE, 1 / 125), FREE) == []
    few = CohortSize(100, 1e6, 500, 0.0, 0.0, 0.0)
    (sentence,) = limits_of(few, load_of(few, 64, FREE, 1 / 125), FREE)
    assert sentence.startswith("2.0 blocks of units for each encoder")


def test_a_unit_takes_the_requests_that_the_model_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "toy")
    with s3.running() as proxy:
        store = proxy.path("store")
        columns = [["A"] * 8, np.arange(8), *np.zeros((3, 8)), [None] * 8]
        (store / "tiles" / "A.parquet").write_table(tables.of_columns(columns, tables.TILES))
        output = EncoderOutput(store / "embed" / "x", source_of(EncoderConfig(), "/none"), 2)
        work = EmbedWork(store, (output,), {}, TilePixels(8), "float32")
        counts = []
        for first in (0, 4):
            proxy.requests.clear()
            unit = WorkUnit(f"A.{first}", "A", first, 4)
            assert not work.is_committed(unit)
            assert work.begin(unit) == ""
            work.commit(unit, [(np.ones((4, 2), np.float32),)], {})
            work.end(unit)
            methods = [request.method for request in proxy.requests]
            counts.append({one: methods.count(one) for one in ("PUT", "HEAD", "GET", "POST")})
    of_unit = {"PUT": PUTS_OF_UNIT, "HEAD": HEADS_OF_UNIT, "GET": 0, "POST": DELETES_OF_UNIT}
    assert counts[1] == of_unit
    assert sum(counts[0].values()) == sum(of_unit.values()) + REQUESTS_OF_TABLE
