"""Vectors to neighbours: exact search, FAISS shards, and the merge that makes many shards answer as one."""
