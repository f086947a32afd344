"""Methods that predict expression from image features: one folder per method, one registry (`methods.py`)."""
