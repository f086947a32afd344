"""The tile step as a Ray job: ray job submit -- python jobs/tile.py --config FILE --set key=value."""

import sys

from raystp.cli import main

if __name__ == "__main__":
    sys.exit(main(["tile", *sys.argv[1:]]))
