"""Predicted and measured expression for viewers and other libraries, one module per format."""
