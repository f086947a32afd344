"""The pipeline as a Ray job: ray job submit -- python jobs/pipeline.py --config FILE --set key=value."""

import sys

from raystp.cli import main

if __name__ == "__main__":
    sys.exit(main(["pipeline", *sys.argv[1:]]))
