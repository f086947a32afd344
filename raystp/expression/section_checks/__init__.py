"""The checks that every measured section passes, whatever layout it came in."""
