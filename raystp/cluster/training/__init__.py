"""Training on Ray Train and sweeps on Ray Tune."""
