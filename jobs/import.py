"""The import step as a Ray job: ray job submit -- python jobs/import.py --config FILE --set key=value."""

import sys

from raystp.cli import main

if __name__ == "__main__":
    sys.exit(main(["import", *sys.argv[1:]]))
