"""Interactive maps of the genes over the tissue, drawn by Bokeh in the reader's browser."""
