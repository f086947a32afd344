"""Step `pipeline`: all steps as one run."""
