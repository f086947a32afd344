"""Command `inspect`: what a file, folder or reference is, what made it, and whether it would be read."""
