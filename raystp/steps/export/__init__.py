"""Step `export`: embeddings or predictions -> files of another tool."""
