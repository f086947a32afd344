"""One local Ray and one tiny cohort for all tests that need them; the environment is set before Ray is imported."""

import logging
import os
from collections.abc import Iterator
from pathlib import Path

ENVIRONMENT = {
    # A cluster on loopback that lives as long as the tests: no token file is left in the home folder.
    "RAY_AUTH_MODE": "disabled",
    # The newer parquet reader starts 32 actors per read, which stall two cores.
    "RAY_DATA_USE_DATASOURCE_V2": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
    # Toy matrices on two cores that Ray's workers share: a second thread only waits for the first.
    "OMP_NUM_THREADS": "1",
}
os.environ.update(ENVIRONMENT)

import pytest  # noqa: E402 -- what is imported from here on reads the environment at import

ROOT = Path(__file__).parents[1]
STORE_BYTES = 300 << 20

WARNINGS = [
    # Ray sets each of its own deprecated fields when it makes a DataContext.
    r"ignore:`use_\w+` is deprecated:DeprecationWarning:ray.data.context",
]
"""What libraries warn about in their own code, which no call of ours can change; all else is an error."""


def pytest_configure(config: pytest.Config) -> None:
    for line in WARNINGS:
        config.addinivalue_line("filterwarnings", line)


@pytest.fixture(scope="session")
def ray_session() -> Iterator[None]:
    """One local Ray of four logical CPUs for the whole run of pytest; every step joins it."""
    import ray
    from ray.data import DataContext

    ray.init(
        address="local",
        num_cpus=4,
        include_dashboard=False,
        log_to_driver=False,
        logging_level=logging.ERROR,
        object_store_memory=STORE_BYTES,
        runtime_env={"env_vars": {"PYTHONPATH": str(ROOT)}},  # a worker imports a test's own `Work` by its module
    )
    context = DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    yield
    ray.shutdown()


@pytest.fixture(scope="session")
def smoke_store(ray_session: None, tmp_path_factory: pytest.TempPathFactory) -> Path:  # noqa: ARG001 -- it must run
    """A store in which the smoke demo has run: read it, and leave what is in it as it is."""
    from raystp.steps import demo

    store = tmp_path_factory.mktemp("smoke") / "demo"
    demo.run(demo.CONFIG.load(ROOT / "conf" / "demo" / "smoke.yaml", [f"run.store={store}"]))
    return store
