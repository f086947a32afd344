"""Streams of work on Ray: tiles, slides, independent tasks, shards, pixels for training."""
