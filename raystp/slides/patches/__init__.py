"""Files of image patches (HEST, hest-bench) in place of a slide."""
