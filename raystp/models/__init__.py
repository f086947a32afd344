"""Pairs of tiles and spots -> a model: contrastive (BLEEP) or direct (ridge, neighbours, means)."""
