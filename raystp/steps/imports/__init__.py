"""Step `import`: features of another tool -> tiles and embeddings; a data set of slides with spots -> a slide table."""
