"""Encoders: tile pixels in, embeddings out."""
