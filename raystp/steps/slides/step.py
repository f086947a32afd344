"""slides: slide files, or a table of them -> a slide table with what each header says, on standard output.

Headers are read in threads; Ray is not started. Nothing is written to the store.
"""

import logging

from raystp.cluster.progress import Progress
from raystp.slides.inputs.survey import read_headers, to_csv
from raystp.slides.table import read_slide_table
from raystp.steps.printed import Printed
from raystp.steps.slides.config import SlidesConfig

logger = logging.getLogger("raystp")

STEP = "slides"
CONFIG = SlidesConfig


def run(config: SlidesConfig) -> Printed:
    """Print a row per slide; one that cannot be read has its `problem`."""
    rows = read_slide_table(config.slides, config.root, config.run.store)
    found = []
    with Progress(STEP, len(rows), "slide") as progress:
        for header in read_headers(rows, threads=config.run.threads):
            found.append(header)
            progress.add(1, failed=bool(header.problem))
    unread = sum(one.width is None and not one.problem for one in found)
    if unread:
        logger.warning(f"  {unread} objects are of formats that are downloaded to be read: their size is not known yet")
    return Printed(to_csv(found), sum(bool(one.problem) for one in found), len(found))
