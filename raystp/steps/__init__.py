"""The steps: one folder each, with its config and `run(config)`. They compose the packages and write artifacts."""
