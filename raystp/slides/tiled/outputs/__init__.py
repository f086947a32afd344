"""Outputs that stored tiles are copied to: the requested tiles themselves, or regions that are resampled to them."""
