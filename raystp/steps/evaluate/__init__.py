"""Score predictions against measured spots or labels of whole cases, and write the report."""
