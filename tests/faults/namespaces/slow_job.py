"""A step as a job whose work units are slow, so that a fault finds some of them unfinished; each machine keeps a log.

The log, `/tmp/plan/log.txt` of a machine, names each unit that was started there.
"""

import sys
from pathlib import Path

from raystp.cli import main
from tests.faults.sabotage import trapped
from tests.faults.traps import MANY, FaultPlan, Trap

FOLDER = Path("/tmp/plan")
UNIT_S = 2.0

if __name__ == "__main__":
    with trapped(FaultPlan((Trap("slow", "commit", times=MANY, seconds=UNIT_S),), FOLDER)):
        sys.exit(main(sys.argv[1:]))
