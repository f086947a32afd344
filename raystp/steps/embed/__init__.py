"""Step `embed`: tiles and an encoder -> embeddings."""
