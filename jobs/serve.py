"""The serve step as a Ray job: ray job submit -- python jobs/serve.py --config FILE --set key=value."""

import sys

from raystp.cli import main

if __name__ == "__main__":
    sys.exit(main(["serve", *sys.argv[1:]]))
