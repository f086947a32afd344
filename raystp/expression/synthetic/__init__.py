"""Simulated sections: spots on a Visium array, and genes whose expression depends on the tissue below."""
