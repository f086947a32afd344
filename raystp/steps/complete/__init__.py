"""Step `complete`: spots -> completed labels for training."""
