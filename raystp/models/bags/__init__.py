"""What methods that learn from bags of tiles share: the layers on a tile, and bags that are sampled in each epoch."""
