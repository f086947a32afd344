"""The spots step as a Ray job: ray job submit -- python jobs/spots.py --config conf/spots/smoke.yaml --set run.store=/data/store."""

import sys

from raystp.cli import main

if __name__ == "__main__":
    sys.exit(main(["spots", *sys.argv[1:]]))
