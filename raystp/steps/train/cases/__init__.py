"""Training on labels of whole cases."""
