"""Write the slide table of a data set of slides with spots, for `raystp import hest`, `hest-bench`, `her2st` ..."""

import logging

from raystp.errors import ConfigError
from raystp.interop.registry import TABLES
from raystp.steps.imports.config import ImportConfig
from raystp.storage import StoragePath

logger = logging.getLogger("raystp")

TABLE = "slides.csv"


def write_tables(config: ImportConfig) -> str:
    """Write the data set's slide table and its companions into `out`; return what was written and the next command.

    Raises ConfigError where `out` has another slide table, and FormatError for a folder that is not the data set's.
    """
    assert config.out is not None  # checked by the config
    root, out = StoragePath.of(config.path), StoragePath.of(config.out)
    form = TABLES[config.format]
    if not root.is_folder():
        msg = f"path: there is no folder {root}; give the folder of {form.data_set}"
        raise ConfigError(msg)
    found = form.table_files(root, config.table_choice)
    for note in found.notes:
        logger.warning(f"  {note}")
    table = out / TABLE
    if table.exists() and table.read_bytes() != found.files[TABLE]:
        msg = f"out: {table} is another slide table: give another folder, or remove it"
        raise ConfigError(msg)
    for name in sorted(found.files, key=lambda one: one == TABLE):  # the table last: it stands for all
        (out / name).write_bytes(found.files[name])
    others = sorted(name for name in found.files if name != TABLE)
    beside = f"\nbeside it: {', '.join(others)}" if others else ""
    return f"{form.data_set}: {found.slides} slides in {table}{beside}\nnext: raystp run {table}"
