"""Fields of configs: their plain values from YAML and `--set`, and sentences for their faults."""
