"""The rows of the fault table: what fails, and the tests of it."""

from dataclasses import dataclass


@dataclass(frozen=True)
class FaultRow:
    """One fault: its number, what fails, and file -> parts of the names of its tests (none: all of the file)."""

    number: str
    fault: str
    tests: dict[str, tuple[str, ...]]


PROCESSES, SLIDES, IMPUTE, STORE = (
    f"tests/faults/test_{name}.py" for name in ("processes", "slides", "impute", "store")
)
TRAINING = "tests/faults/training"
SHORT = ("short_faults", "retry_embeds")

ROWS = (
    FaultRow("P1", "SIGKILL of an encoder at a random unit and stage, 20 seeds", {PROCESSES: ("killing_an_encoder",)}),
    FaultRow("P1", "100 seeded kills in 5 runs", {PROCESSES: ("a_hundred_kills",)}),
    FaultRow("P2", "kill, `os._exit`, abort, segfault, `sys.exit` in a worker", {PROCESSES: ("any_kind_of_crash",)}),
    FaultRow(
        "P3",
        "a slide that kills or hangs every process",
        {
            PROCESSES: ("crashes_or_hangs_every", "many_kinds"),
            SLIDES: ("crashes_or_hangs_its",),
            IMPUTE: ("crashes_every_worker",),
        },
    ),
    FaultRow(
        "P4",
        "a node is killed, one is added",
        {PROCESSES: ("losing_a_node", "in_turn"), IMPUTE: ("losing_a_node", "actor_with_shards")},
    ),
    FaultRow(
        "P5",
        "driver killed at 10, 50, 90 %; two drivers at once",
        {PROCESSES: ("repeatedly", "two_concurrent"), IMPUTE: ("killed_driver",)},
    ),
    FaultRow("P6", "kill before, during and after the commit", {PROCESSES: ("before_during",)}),
    FaultRow("P7", "SIGTERM, SIGINT", {PROCESSES: ("signal_stops",)}),
    FaultRow("P8", "`train`: a worker or the driver killed", {f"{TRAINING}/test_kills.py": ()}),
    FaultRow(
        "P8",
        "`train`: killed between report and commit; torn checkpoint; damaged list of checkpoints",
        {f"{TRAINING}/test_checkpoints.py": (), "tests/models/test_store.py": ("checkpoint",)},
    ),
    FaultRow("P9", "`tune`: killed and resumed", {"tests/steps/tune/test_tune.py": ()}),
    FaultRow(
        "S1",
        "500 twice, SlowDown, 503 always, 404, 403",
        {
            STORE: (*SHORT, "cannot_be_read"),
            "tests/storage/test_read_ranges.py": ("transient", "refusal", "lasting_503"),
        },
    ),
    FaultRow(
        "S2",
        "body truncated once and always; connection reset",
        {STORE: SHORT, "tests/storage/test_read_ranges.py": ("body_ended", "ends_early")},
    ),
    FaultRow(
        "S3",
        "a store that never answers; 1 KB/s",
        {
            STORE: SHORT,
            "tests/storage/test_read_ranges.py": ("silent", "too_slow"),
            "tests/storage/test_retry.py": (),
        },
    ),
    FaultRow(
        "S4",
        "flipped byte of a whole object; object replaced while it is read",
        {
            "tests/storage/test_download.py": ("flipped", "digest"),
            "tests/storage/test_node_cache_faults.py": (),
            "tests/storage/test_read_ranges.py": ("replaced", "version"),
            "tests/slides/tiled/test_remote.py": ("replaced",),
            STORE: ("replaced",),
        },
    ),
    FaultRow(
        "S5",
        "store down during writes; write stored but answered 500; upload in parts broken off",
        {
            STORE: ("refuses_all_writes", "short_faults"),
            "tests/storage/test_write_new.py": (),
            "tests/storage/test_uploads.py": (),
        },
    ),
    FaultRow(
        "D1",
        "full disk: output, cache of slides",
        {"tests/faults/test_disks.py": ("full",), "tests/storage/test_node_cache_faults.py": ("disk",)},
    ),
    FaultRow("D1", "full disk: checkpoint", {f"{TRAINING}/test_full_disk.py": ()}),
    FaultRow("D1", "full disk: spill", {"tests/faults/test_spill.py": ()}),
    FaultRow(
        "D2",
        "a slide of 100,000 px, tiles of 4,096 px, a memory limit",
        {SLIDES: ("larger_than_memory",), "tests/slides/readers/test_flat.py": ("too_large",)},
    ),
    FaultRow("D3", "small shared memory", {"tests/faults/test_disks.py": ("small_shared",)}),
    FaultRow(
        "W1",
        "22 altered copies, on disk and in a store; crashing decoder",
        {
            "tests/slides/tiled/test_altered.py": (),
            "tests/slides/readers/test_headers.py": (),
            SLIDES: ("damaged_unusual",),
        },
    ),
    FaultRow("W1", "mutated headers of every kind of file", {"tests/slides/readers/test_fuzz.py": ()}),
    FaultRow(
        "W2",
        "no, impossible or odd um/px; fractional levels; one pixel; no tissue, all tissue; label first",
        {
            SLIDES: ("impossible", "damaged_unusual"),
            "tests/slides/test_open.py": (),
            "tests/slides/test_read.py": ("fractional",),
            "tests/slides/tissue/test_tissue.py": ("glass", "everywhere"),
            "tests/slides/readers/test_checks.py": ("largest_picture",),
        },
    ),
    FaultRow(
        "W3",
        "equal names, equal contents; ids that leave the store",
        {
            SLIDES: ("invalid_name", "damaged_unusual"),
            "tests/slides/inputs/test_listing.py": (),
            "tests/slides/inputs/test_copies.py": (),
        },
    ),
    FaultRow(
        "H1",
        "h5ad: truncated, bomb, NaN, negative, fractions, duplicates, other genes, other lengths, pickled objects",
        {
            "tests/expression/test_schema.py": (),
            "tests/expression/section_checks/test_matrix.py": (),
            "tests/expression/readers/test_space_ranger.py": (),
            "tests/expression/genes/test_names.py": (),
            "tests/test_hdf5.py": (),
        },
    ),
    FaultRow(
        "H2",
        "parquet: truncated, other schema, other length, NaN, bomb",
        {
            "tests/expression/test_damaged_embeddings.py": (),
            "tests/test_tables.py": (),
            "tests/slides/inputs/test_sheets.py": (),
            "tests/expression/readers/test_columns.py": (),
        },
    ),
    FaultRow(
        "H3",
        "index: other sha256, damaged file, k > rows, one query, equal rows, zero vector",
        {
            "tests/index/test_index.py": (),
            "tests/index/test_shards.py": (),
            "tests/index/search/test_exact.py": (),
            "tests/index/search/test_kinds.py": (),
        },
    ),
    FaultRow("C1", "config: unknown key, wrong type, YAML bomb, tags, negative sizes", {"tests/test_config.py": ()}),
    FaultRow(
        "X2",
        "job API, dashboard, service without or with a wrong token",
        {
            "tests/cluster/serving/test_guard.py": ("token",),
            "tests/cluster/test_jobs.py": ("without_the_token",),
            "tests/cluster/test_token.py": (),
        },
    ),
    FaultRow(
        "X3",
        "10,000 fuzzed requests; replica killed; 1 GB body; slow body; limits",
        {
            "tests/faults/test_service.py": (),
            "tests/cluster/serving/test_guard.py": (),
            "tests/cluster/serving/test_arrow.py": (),
            "tests/cluster/serving/test_messages.py": (),
        },
    ),
    FaultRow(
        "M1",
        "MLflow away, slow or failing at the start, in the middle, at the end",
        {"tests/cluster/tracking/test_tracking.py": (), "tests/cluster/tracking/test_rejections.py": ()},
    ),
    FaultRow("Z1", "one pipeline of all steps under random faults", {"tests/faults/chaos/test_chaos.py": ()}),
    FaultRow("Z2", "shuffled slides; 1, 2, 4 workers; batches of 1, 3, 64", {"tests/faults/test_order.py": ()}),
)
