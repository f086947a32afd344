"""Step `tile`: tile boxes, a tissue mask and a thumbnail per slide."""
