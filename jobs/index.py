"""The index step as a Ray job: ray job submit -- python jobs/index.py --config FILE --set key=value."""

import sys

from raystp.cli import main

if __name__ == "__main__":
    sys.exit(main(["index", *sys.argv[1:]]))
