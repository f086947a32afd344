"""Encoders: pixels of tiles in, embeddings out."""
