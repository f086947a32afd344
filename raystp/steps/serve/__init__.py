"""Step `serve`: a model and its index as an HTTP service."""
