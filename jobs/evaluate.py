"""The evaluate step as a Ray job: ray job submit -- python jobs/evaluate.py --config conf/evaluate/smoke.yaml --set run.store=/data/store."""

import sys

from raystp.cli import main

if __name__ == "__main__":
    sys.exit(main(["evaluate", *sys.argv[1:]]))
