"""Layout `hest`: a section of HEST-1k or hest-bench, which is an h5ad with a JSON file beside it."""
