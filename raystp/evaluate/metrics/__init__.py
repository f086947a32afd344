"""Scores of predictions against measurements, and of maps against known regions."""
