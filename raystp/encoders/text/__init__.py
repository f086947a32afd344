"""Encoders of gene texts: texts by gene symbol in, one vector per gene out."""
