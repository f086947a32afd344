"""Training on measured spots."""
