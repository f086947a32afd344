"""The steps: one file each, its config and `run(config)`. They compose the rooms and leave artifacts."""
