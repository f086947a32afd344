"""Layout `visium_hd`: bins of Visium HD, pooled to squares that a tile can be compared with."""
