"""Predictions of all folds under a published protocol: a run that does not fit it is refused."""
