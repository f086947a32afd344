"""Placeholder of the package while its dependencies are installed, so that code changes do not rebuild their layer."""
