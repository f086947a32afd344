"""Choice on the training side: `fit.select: cv`."""
