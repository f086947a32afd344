"""Stands for the package while its dependencies are installed, so that their layer is kept when only code changes."""
