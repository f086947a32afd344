"""Whether the uncertainty that comes with a prediction is right: its spread, and the mark `far`."""
