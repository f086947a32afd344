"""Step `doctor`: what of this machine and its services works, and the next command where something does not."""
