"""Families of encoders that share a method of construction: timm, the hub, cards, and encoders of our own."""
