"""What the report's interactive maps show, read from the artifacts of a prediction."""
