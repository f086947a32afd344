"""Nearest-neighbour search: exact, FAISS kinds, and the merge of results."""
