"""Random changes of tiles while an encoder is trained: mirrored, rotated, and stained more or less."""
