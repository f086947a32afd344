"""The command line: `raystp STEP --field value`, whose flags are the fields of the step's config class.

Exit status: 0 done (now or before), 1 an error, 2 a wrong command line, 3 done, but more slides or sections failed than
`run.max_failed` allows; they are rows of the artifact's failures table.
"""

from raystp.cli.entry import main

__all__ = ["main"]
