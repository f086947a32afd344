"""Step `train`: spots or cases + embeddings or tiles -> a model."""
