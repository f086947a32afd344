"""The parts of the benchmarks import each other by bare names, as their scripts do."""

import sys

from tests.conftest import ROOT

sys.path.insert(0, str(ROOT / "infra" / "benchmarks"))
