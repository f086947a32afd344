"""Step `import`: tiles and vectors of another tool -> tiles and embeddings."""
