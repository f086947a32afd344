"""Step `impute`: embeddings + a model [+ a reference index] -> predicted expression."""
