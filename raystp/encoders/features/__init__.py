"""What is taken of an encoder: its own row, rows of earlier layers, views of a tile, spatial tokens."""
