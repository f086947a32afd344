"""The whole pipeline under random faults for some minutes; each run must equal the run without faults.

A cluster of three nodes, an object store behind a proxy that injects faults, and random kills of workers, nodes and
drivers: `tests/faults/chaos`. Prints a line for each pipeline; `--minutes`, `--seed`, `--folder`, `--out FILE`.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))  # the faults are those of the tests

from tests.faults.chaos.soak import main

if __name__ == "__main__":
    main()
