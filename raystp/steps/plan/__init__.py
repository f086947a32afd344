"""Command `plan`: what a pipeline would read, write and take, before it is run."""
