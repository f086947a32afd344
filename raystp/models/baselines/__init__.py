"""Baselines: ridge, kNN and gene mean as methods, and the sequencing depth as a control."""
