"""MLflow tracking that never delays the work."""
