"""Command `slides`: the slide table of a folder."""
