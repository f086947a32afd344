"""One local Ray and one tiny cohort for all tests that need them; the environment is set before Ray is imported."""

import logging
import os
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
SHARED = ROOT.parent / "shared"
"""Real sections, slides and weights, beside the checkout; tests that read them skip where they are absent."""
ENVIRONMENT = {
    # A cluster on loopback that lives as long as the tests: no token is left in the home folder.
    "RAY_AUTH_MODE": "disabled",
    # The newer parquet reader starts 32 actors per read, which stall two cores.
    "RAY_DATA_USE_DATASOURCE_V2": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
    # Ray's workers are what a test waits for; by default they give way to every other process.
    "RAY_worker_niceness": "0",
    # Toy matrices, on cores that Ray's workers share: a second thread only waits for the first.
    "OMP_NUM_THREADS": "1",
    # A worker imports a test's own class by its module's name, `tests.cluster.streams.test_tiles`.
    "PYTHONPATH": str(ROOT),
}
os.environ.update(ENVIRONMENT)

import pytest  # noqa: E402 -- whatever is imported from here on reads the environment
from xdist.remote import Producer  # noqa: E402

from tests.scheduler import OneRay  # noqa: E402

pytest_plugins = ["tests.browser"]
STORE_BYTES = 300 << 20

WARNINGS = [
    # Ray sets each of its own deprecated fields when it makes a DataContext.
    r"ignore:`use_\w+` is deprecated:DeprecationWarning:ray.data.context",
    # Ray Serve's own forms are written as an older pydantic had them.
    r"ignore:Using extra keyword arguments on `Field` is deprecated:DeprecationWarning:ray\.serve\.\S+",
    # MLflow's tables still use a way of loading that SQLAlchemy means to drop.
    "ignore:The ``noload`` loader strategy is deprecated:DeprecationWarning:mlflow.store.tracking.sqlalchemy_store",
]
"""What libraries say of their own code, and no call of ours can change; every other warning is an error."""


def pytest_configure(config: pytest.Config) -> None:
    for line in WARNINGS:
        config.addinivalue_line("filterwarnings", line)


@pytest.hookimpl(optionalhook=True)  # unknown with `-p no:xdist`
def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> OneRay:
    return OneRay(config, log)


@pytest.fixture
def real_data() -> Path:
    if not (SHARED / "data").is_dir():
        pytest.skip(f"the real sections are not at {SHARED / 'data'}")
    return SHARED / "data"


@pytest.fixture(scope="session", autouse=True)
def _console() -> None:
    """Print the messages of raystp as its command line does, whichever way a test calls a step."""
    from raystp.cluster.progress import log_to_console  # noqa: PLC0415 -- the environment is set before imports

    log_to_console()


@pytest.fixture(scope="session")
def ray_session() -> Iterator[None]:
    """One local Ray of four logical CPUs for the whole run of pytest; every step joins it."""
    import ray  # noqa: PLC0415 -- only the tests that start Ray pay for its import
    from ray.data import DataContext  # noqa: PLC0415 -- the same

    ray.init(
        address="local",
        num_cpus=4,
        include_dashboard=False,
        log_to_driver=False,
        logging_level=logging.ERROR,
        object_store_memory=STORE_BYTES,
    )
    context = DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    yield
    ray.shutdown()


@pytest.fixture(scope="session")
def smoke_store(ray_session: None, tmp_path_factory: pytest.TempPathFactory) -> Path:  # noqa: ARG001 -- Ray must be up
    """A store in which the smoke demo has run. It is for all tests: add under names of your own, or copy it."""
    from raystp.cluster.session import joined  # noqa: PLC0415 -- imports Ray
    from raystp.steps.demo import step as demo  # noqa: PLC0415 -- the same

    store = tmp_path_factory.mktemp("smoke") / "demo"
    with joined(is_local=True):  # as for a user of one machine
        demo.run(demo.CONFIG.load(ROOT / "conf" / "demo" / "smoke.yaml", [f"run.store={store}"]))
    return store
