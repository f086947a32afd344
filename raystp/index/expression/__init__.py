"""The expression rows of an index: forms on disk and in memory, and weighted sums over them."""
