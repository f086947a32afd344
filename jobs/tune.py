"""The tune step as a Ray job: ray job submit -- python jobs/tune.py --config FILE --set key=value."""

import sys

from raystp.cli import main

if __name__ == "__main__":
    sys.exit(main(["tune", *sys.argv[1:]]))
