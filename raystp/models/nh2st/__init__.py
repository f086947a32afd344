"""Nh2st."""
