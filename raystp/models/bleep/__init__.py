"""BLEEP: contrastive training of images and expression, prediction by retrieval."""
