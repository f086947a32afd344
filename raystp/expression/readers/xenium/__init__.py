"""Layout `xenium`: transcripts or cells of Xenium, pooled to squares on the H&E image."""
