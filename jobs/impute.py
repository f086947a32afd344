"""The impute step as a Ray job: ray job submit -- python jobs/impute.py --config conf/impute/smoke.yaml --set run.store=/data/store."""

import sys

from raystp.cli import main

if __name__ == "__main__":
    sys.exit(main(["impute", *sys.argv[1:]]))
