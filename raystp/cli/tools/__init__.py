"""Commands without a config."""
