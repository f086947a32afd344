"""The index step as a Ray job: ray job submit -- python jobs/index.py --config conf/index/smoke.yaml --set run.store=/data/store."""

import sys

from raystp.cli import main

if __name__ == "__main__":
    sys.exit(main(["index", *sys.argv[1:]]))
