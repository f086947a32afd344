"""`python -m raystp.cli`."""

import sys

from raystp.cli import main

if __name__ == "__main__":
    sys.exit(main())
