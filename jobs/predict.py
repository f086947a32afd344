"""The predict step as a Ray job: ray job submit -- python jobs/predict.py --config FILE --set key=value."""

import sys

from raystp.cli import main

if __name__ == "__main__":
    sys.exit(main(["predict", *sys.argv[1:]]))
