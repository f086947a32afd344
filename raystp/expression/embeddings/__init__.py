"""Embeddings of slides: one artifact, or several that are joined by place."""
