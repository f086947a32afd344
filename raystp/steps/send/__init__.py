"""Step `send`: deliver kept tracking entries to MLflow."""
