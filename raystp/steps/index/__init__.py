"""Step `index`: measured spots + a contrastive model -> a reference index."""
